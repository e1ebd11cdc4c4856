"""Deformable convolution against detectron2's in float64, and against a loop that defines it."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.ops.deformable_conv import deformable_conv

TOLERANCE = 1e-10  # measured: 6e-16
CASES = ("s1", "s2", "d2", "s2d2")  # strides and dilations


@pytest.fixture(scope="module")
def units(goldens_dir):
    """Inputs in float32, and over them what they give in float64."""
    folder = goldens_dir / "detectron2_cascade"
    return {**np.load(folder / "units.npz"), **np.load(folder / "units_f64.npz")}


def nhwc(x):
    return np.transpose(x, (0, 2, 3, 1)).astype("float64")


def with_gradients(upstream, *inputs, **options):
    """The output, and the gradients of its product with `upstream`."""
    inputs = [tf.convert_to_tensor(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = deformable_conv(*inputs, **options)
        total = tf.reduce_sum(y * upstream)
    return y, *tape.gradient(total, inputs)


def check(received, expected, tolerance=TOLERANCE):
    for value, wanted in zip(received, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("case", "compiled"),
    [*((case, False) for case in CASES), pytest.param("s2d2", True, marks=pytest.mark.slow)],
)
def test_equals_detectron2(units, case, compiled):
    """A quarter of the samples lie off the map, and a sixth within a cell of its rim."""
    names = ("grad_output", "input", "offset")
    upstream, x, offsets = (nhwc(units[f"deform_{case}_{name}"]) for name in names)
    kernel = np.transpose(units[f"deform_{case}_weight"], (2, 3, 1, 0)).astype("float64")
    strides, padding, dilation = map(int, units[f"deform_{case}_params"])
    assert padding == dilation
    run = tf.function(with_gradients, jit_compile=True) if compiled else with_gradients
    received = run(upstream, x, offsets, kernel, strides=strides, dilation=dilation)
    names = ("output", "grad_input", "grad_offset")
    expected = [nhwc(units[f"deform_{case}_{name}"]) for name in names]
    kernel_gradient = units[f"deform_{case}_grad_weight"]
    check(received, [*expected, np.transpose(kernel_gradient, (2, 3, 1, 0))])


def test_fades_out_at_the_rim(units):
    image, points = nhwc(units["deform_edge_image"]), units["deform_edge_yx"].astype("float64")
    cells = np.stack(np.meshgrid(np.arange(5), np.arange(7), indexing="ij"), axis=-1)
    offsets = np.zeros((35, 2))
    offsets[:20] = points - cells.reshape(35, 2)[:20]
    received = deformable_conv(image, offsets.reshape(1, 5, 7, 2), np.ones((1, 1, 1, 1)))
    received = np.ravel(received)
    np.testing.assert_allclose(received[:20], units["deform_edge_value"], atol=1e-6)
    np.testing.assert_array_equal(received[20:], image.ravel()[20:])


def looped(x, offsets, kernel, mask, strides, dilation, deform_groups):
    """One cell, tap and channel after the other."""
    batch, height, width, channels = x.shape
    kh, kw, group_width, filters = kernel.shape
    x = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    y = np.zeros((batch, *offsets.shape[1:3], filters))
    offsets = offsets.reshape(*offsets.shape[:3], deform_groups, kh * kw, 2)
    mask = mask.reshape(*mask.shape[:3], deform_groups, kh * kw)
    for b, i, j, c, t in itertools.product(
        range(batch), *map(range, y.shape[1:3]), range(channels), range(kh * kw)
    ):
        d = c // (channels // deform_groups)
        top = i * strides + (t // kw - kh // 2) * dilation + offsets[b, i, j, d, t, 0]
        left = j * strides + (t % kw - kw // 2) * dilation + offsets[b, i, j, d, t, 1]
        if not (-1 < top < height and -1 < left < width):
            continue
        row, column = math.floor(top), math.floor(left)
        square = x[b, row + 1 : row + 3, column + 1 : column + 3, c]
        below, right = top - row, left - column
        value = np.array([1 - below, below]) @ square @ np.array([1 - right, right])
        group = c // group_width
        mine = slice(group * filters * group_width // channels, None)
        mine = slice(mine.start, mine.start + filters * group_width // channels)
        weights = kernel[t // kw, t % kw, c % group_width, mine]
        y[b, i, j, mine] += mask[b, i, j, d, t] * value * weights
    return y


@pytest.mark.parametrize(
    ("strides", "dilation", "groups", "deform_groups", "size"), [(2, 1, 2, 1, 3), (1, 2, 1, 2, 3)]
)
def test_modulated_with_groups(strides, dilation, groups, deform_groups, size):
    """The output against the loop; each gradient against differences, along a random line."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 5, 6, 4))
    shape = (2, -(-5 // strides), -(-6 // strides))
    inputs = [
        x,
        rng.normal(size=(*shape, 2 * deform_groups * size**2)) * 2,
        rng.normal(size=(size, size, 4 // groups, 6)),
        rng.uniform(size=(*shape, deform_groups * size**2)),
    ]
    options = {"strides": strides, "dilation": dilation, "deform_groups": deform_groups}
    upstream = rng.normal(size=(*shape, 6))
    y, *gradients = with_gradients(upstream, *inputs, **options)
    np.testing.assert_allclose(y, looped(*inputs, strides, dilation, deform_groups), atol=1e-13)
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=inputs[i].shape)
        ends = []
        for sign in (1, -1):
            moved = [*inputs]
            moved[i] = inputs[i] + sign * 1e-7 * direction
            ends.append(np.sum(deformable_conv(*moved, **options) * upstream))
        slope = (ends[0] - ends[1]) / 2e-7
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6)


def test_without_offsets_it_is_a_convolution():
    """Of a map whose size only the data says, in half precision too."""
    rng = np.random.default_rng(4)
    x, kernel = rng.normal(size=(1, 6, 7, 8)), rng.normal(size=(3, 3, 8, 4))
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 0.3)):
        spec = tf.TensorSpec((None, None, None, 8), dtype)
        offsets = tf.TensorSpec((None, None, None, 18), "float32")
        run = tf.function(
            deformable_conv, input_signature=[spec, offsets, tf.TensorSpec(kernel.shape, dtype)]
        )
        y = run(tf.cast(x, dtype), tf.zeros((1, 6, 7, 18)), tf.cast(kernel, dtype))
        assert y.dtype == dtype
        expected = tf.nn.conv2d(x, kernel, 1, "SAME")
        np.testing.assert_allclose(tf.cast(y, "float64"), expected, atol=tolerance)


def test_offsets_that_are_no_numbers_spoil_no_memory():
    x, kernel = tf.ones((1, 3, 3, 1)), tf.ones((1, 1, 1, 1))
    offsets = np.zeros((1, 3, 3, 2), np.float32)
    offsets[0, 0, 0], offsets[0, 1, 1] = np.nan, np.inf
    y = np.ravel(deformable_conv(x, offsets, kernel))
    assert np.isnan(y[0]) and y[4] == 0
    np.testing.assert_array_equal(y[[1, 2, 3, 5, 6, 7, 8]], 1)
