"""Resizing must equal PyTorch's interpolation."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.ops.resize import resize_bilinear, upsample_bilinear

SIZES = {"x2": (22, 26), "x4": (44, 52), "23x37": (23, 37), "7x9": (7, 9)}
# Sample positions are rounded at about 1e-6 of a pixel.
TOLERANCE = 1e-5


def golden(units, name):
    return units[name].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", SIZES)
def test_bilinear(units, name):
    resized = resize_bilinear(golden(units, "resize_in"), SIZES[name])
    expected = golden(units, f"resize_bilinear_{name}")
    np.testing.assert_allclose(ops.convert_to_numpy(resized), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", SIZES)
def test_bilinear_of_keras(units, name):
    resized = ops.image.resize(
        golden(units, "resize_in"), SIZES[name], antialias=False, data_format="channels_last"
    )
    expected = golden(units, f"resize_bilinear_{name}")
    np.testing.assert_allclose(ops.convert_to_numpy(resized), expected, atol=TOLERANCE)


@pytest.mark.parametrize("factor", [2, 4])
def test_upsample(units, factor):
    resized = upsample_bilinear(ops.convert_to_tensor(golden(units, "resize_in")), factor)
    expected = golden(units, f"resize_bilinear_x{factor}")
    np.testing.assert_allclose(ops.convert_to_numpy(resized), expected, atol=TOLERANCE)


def test_unknown_sizes_in_a_graph(units, tf):
    signature = [tf.TensorSpec([None, None, None, 2]), tf.TensorSpec([2], "int32")]
    graph = tf.function(
        lambda x, size: (resize_bilinear(x, size), upsample_bilinear(x, 2)),
        input_signature=signature,
    )
    resized, upsampled = graph(golden(units, "resize_in"), [23, 37])
    np.testing.assert_allclose(resized, golden(units, "resize_bilinear_23x37"), atol=TOLERANCE)
    np.testing.assert_allclose(upsampled, golden(units, "resize_bilinear_x2"), atol=TOLERANCE)


def test_dtype_stays():
    x = ops.ones([1, 2, 3, 4], dtype="float16")
    assert keras.backend.standardize_dtype(resize_bilinear(x, (5, 6)).dtype) == "float16"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_gradient_is_compiled_in_half_precision(tf, dtype):
    """XLA refuses a gradient of another dtype. Each cell is read by four."""

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.relu(upsample_bilinear(tf.nn.relu(x), 2))
        return tape.gradient(y, x)

    received = tf.function(gradient, jit_compile=True)(tf.ones([1, 3, 5, 2], dtype))
    assert received.dtype == dtype
    np.testing.assert_array_equal(tf.cast(received, "float32"), np.full([1, 3, 5, 2], 4))


def test_nearest_doubles_each_cell(units):
    x = golden(units, "resize_in")
    resized = ops.image.resize(
        x, SIZES["x2"], interpolation="nearest", antialias=False, data_format="channels_last"
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(resized), x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(golden(units, "resize_nearest_x2"), x.repeat(2, 1).repeat(2, 2))
