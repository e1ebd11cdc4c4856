"""A grouped convolution is a dense one whose kernel is 0 between groups, by every way there is."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import Conv2D, make_norm
from tf_panoptic_fpn.ops import grouped_conv as module
from tf_panoptic_fpn.ops.grouped_conv import grouped_conv, split_conv

SHAPES = [  # channels, filters, groups, kernel size, strides, padding
    (4, 6, 2, 3, (1, 1), "same"),
    (8, 8, 4, 3, (2, 2), "valid"),
    (6, 6, 6, 1, (1, 1), "valid"),
    (4, 4, 2, 3, (2, 1), "same"),
]


def dense_kernel(kernel, groups):
    """`[k, k, C / groups, F]` -> `[k, k, C, F]`, 0 where input and output are of other groups."""
    parts = ops.split(kernel, groups, axis=-1)
    side = kernel.shape[2]
    return ops.concatenate(
        [
            ops.pad(part, [[0, 0], [0, 0], [i * side, (groups - 1 - i) * side], [0, 0]])
            for i, part in enumerate(parts)
        ],
        axis=-1,
    )


def output_and_gradients(tf, function, x, kernel):
    """The output, and the gradients of the sum of its squares to both arguments."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = function(x, kernel)
        total = tf.reduce_sum(y**2)
    return y, *tape.gradient(total, [x, kernel])


@pytest.mark.parametrize("way", ["chosen", "without the kernel", "split"])
@pytest.mark.parametrize(("channels", "filters", "groups", "size", "strides", "padding"), SHAPES)
def test_it_equals_a_dense_convolution(
    tf, monkeypatch, way, channels, filters, groups, size, strides, padding
):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, 9, 12, channels)))
    kernel = tf.constant(rng.normal(size=(size, size, channels // groups, filters)))
    if way == "without the kernel":
        monkeypatch.setattr(module, "has_gradient_kernel", lambda dtype: False)
    function = split_conv if way == "split" else grouped_conv
    received = output_and_gradients(
        tf, lambda x, kernel: function(x, kernel, strides, padding), x, kernel
    )
    expected = output_and_gradients(
        tf,
        lambda x, kernel: ops.conv(x, dense_kernel(kernel, groups), strides, padding),
        x,
        kernel,
    )
    for value, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_other_precisions(tf, dtype):
    """Gradients have the dtype of their argument, and the value but for its rounding."""
    rng = np.random.default_rng(1)
    x, kernel = rng.integers(-2, 3, (1, 5, 4, 4)), rng.integers(-2, 3, (3, 3, 2, 4))

    def run(dtype):
        return output_and_gradients(
            tf,
            lambda x, kernel: grouped_conv(x, kernel, (1, 1), "same"),
            tf.constant(x, dtype),
            tf.constant(kernel, dtype),
        )

    rounding = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6}[dtype]
    for value, exact in zip(run(dtype), run("float64"), strict=True):
        assert value.dtype == dtype
        difference = np.abs(ops.convert_to_numpy(ops.cast(value, "float64")) - exact.numpy())
        assert difference.max() <= rounding * np.abs(exact).max()


def test_xla_compiles_it(tf, compiled):
    rng = np.random.default_rng(2)
    x, kernel = (
        tf.constant(rng.normal(size=(1, 5, 4, 4))),
        tf.constant(rng.normal(size=(3, 3, 2, 4))),
    )

    def run(x, kernel):
        return output_and_gradients(
            tf, lambda x, kernel: grouped_conv(x, kernel, (1, 1), "same"), x, kernel
        )

    for value, plain in zip(compiled(run)(x, kernel), run(x, kernel), strict=True):
        np.testing.assert_allclose(value, plain, rtol=0, atol=1e-12 * np.abs(plain).max())


@pytest.mark.parametrize("norm", [None, "frozen_affine", "sync_batch_norm", "group_norm"])
def test_grouped_convolution_runs_as_grappler_rewrites_it(norm):
    """Fused with its bias or norm, a convolution of groups has no kernel for processors."""
    x = np.random.default_rng(0).normal(size=(1, 6, 8, 8)).astype("float32")
    conv = Conv2D(8, 3, groups=2, padding="same", bias_initializer="ones", use_bias=norm is None)
    layers = [conv] if norm is None else [conv, make_norm(norm, "norm", groups=4)]
    model = keras.Sequential([keras.Input((None, None, 8)), *layers, keras.layers.ReLU()])
    expected = model(x)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    try:
        received = tf.function(lambda x: tf.nn.softmax(model(x)), autograph=False)(x)
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    np.testing.assert_allclose(received, tf.nn.softmax(expected), rtol=1e-5)
