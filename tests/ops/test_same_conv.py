"""The faster gradient of a 3x3 convolution is its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.backbones import conv_norm
from tf_panoptic_fpn.backbones.conv_norm import Conv2D, ConvNorm
from tf_panoptic_fpn.ops.same_conv import has_slow_gradient, same_conv


def gradients_of(convolve, x, kernel, upstream):
    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        y = convolve(x, kernel)
    return y, *tape.gradient(y, (x, kernel), upstream)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 7)])
@pytest.mark.parametrize("sides", [(3, 3), (1, 5)])
def test_output_and_gradients_are_those_of_the_plain_convolution(size, sides):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, *size, 3)))
    kernel = tf.constant(rng.normal(size=(*sides, 3, 4)))
    upstream = tf.constant(rng.normal(size=(2, *size, 4)))
    plain = gradients_of(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), x, kernel, upstream)
    received = gradients_of(same_conv, x, kernel, upstream)
    for value, expected in zip(received, plain, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


def test_one_cell_by_hand():
    """A cell is read by itself alone through the kernel's middle."""
    kernel = tf.reshape(tf.range(9.0), (3, 3, 1, 1))
    y, dx, dkernel = gradients_of(
        same_conv, tf.fill([1, 1, 1, 1], 2.0), kernel, tf.fill([1] * 4, 3.0)
    )
    assert (float(y[0, 0, 0, 0]), float(dx[0, 0, 0, 0])) == (8, 12)
    assert tf.reshape(dkernel, -1).numpy().tolist() == [0, 0, 0, 0, 6, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({"padding": "same"}, True),
        ({"padding": "valid"}, False),
        ({"padding": "same", "strides": 2}, False),
        ({"padding": "same", "groups": 2}, False),
        ({"padding": "same", "dilation_rate": 2}, False),
    ],
)
def test_a_layer_uses_it_in_training_alone(monkeypatch, options, used):
    calls = []
    monkeypatch.setattr(conv_norm, "has_slow_gradient", lambda dtype: True)
    monkeypatch.setattr(
        conv_norm, "same_conv", lambda x, k: calls.append(x) or tf.nn.conv2d(x, k, 1, "SAME")
    )
    layer = Conv2D(4, 3, **options)
    layer(tf.zeros([1, 8, 8, 4]))
    assert not calls
    layer(tf.zeros([1, 8, 8, 4]), training=True)
    assert len(calls) == used


def test_compiled_graphs_have_tensorflows_gradient():
    found = []
    function = tf.function(lambda: found.append(has_slow_gradient("float32")), jit_compile=True)
    function.get_concrete_function()
    assert found == [False]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_frozen_affine_is_in_the_kernel(training, groups):
    rng = np.random.default_rng(0)
    layer = ConvNorm(4, 3, "frozen_affine", groups=groups, dtype="float64")
    x = tf.constant(rng.normal(size=(1, 5, 6, 4)))
    layer.build(x.shape)
    layer.norm.scale.assign(rng.normal(size=4))
    layer.norm.shift.assign(rng.normal(size=4))
    with tf.GradientTape() as tape:
        y = layer(x, training=training)
    with tf.GradientTape() as plain_tape:
        plain = tf.nn.relu(layer.norm(layer.conv(x)))
    np.testing.assert_allclose(y, plain, rtol=1e-12, atol=1e-12)
    kernel = layer.conv.kernel.value
    pair = tape.gradient(y, kernel), plain_tape.gradient(plain, kernel)
    np.testing.assert_allclose(*pair, rtol=1e-12, atol=1e-12)
