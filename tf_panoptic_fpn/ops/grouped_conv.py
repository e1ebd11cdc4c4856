"""Grouped convolution, trained on every processor.

Keras compiles grouped convolutions with XLA on TensorFlow, which is 20 times slower on a CPU than
TensorFlow's own kernel, and hundreds of times in the backward pass. That kernel has a gradient on
a GPU, and on a CPU for some dtypes where oneDNN is in use; elsewhere there is none.
"""

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.schema import Tensor


def grouped_conv(x: Tensor, kernel: Tensor, strides: tuple[int, int], padding: str) -> Tensor:
    """Convolves each group of channels with its own kernels, on the TensorFlow backend.

    Args:
        x: float `[B, H, W, C]`.
        kernel: `[kh, kw, C / groups, filters]`, the dtype of `x`; its third side says how many
            groups there are.
        strides: (int, int).
        padding: "valid" or "same".

    Returns:
        `[B, H', W', filters]`, the dtype of `x`.

    Reference: Aggregated Residual Transformations, arXiv:1611.05431, Figure 3 c.
    """
    import tensorflow as tf

    if kernel.shape[2] == 1 and kernel.shape[3] == x.shape[-1]:  # a group is one channel
        depthwise = tf.transpose(kernel, (0, 1, 3, 2))
        return tf.nn.depthwise_conv2d(x, depthwise, [1, *strides, 1], padding.upper())
    if not use_tensorflow_kernels() and not tf.config.list_logical_devices("GPU"):
        return split_conv(x, kernel, strides, padding)
    if not use_tensorflow_kernels() or has_gradient_kernel(x.dtype):
        return tf.nn.conv2d(x, kernel, strides, padding.upper())
    return _conv_with_split_gradient(x, kernel, strides, padding)


def split_conv(x: Tensor, kernel: Tensor, strides: tuple[int, int], padding: str) -> Tensor:
    """`grouped_conv` as one convolution a group, in `keras.ops`; XLA compiles it."""
    groups = x.shape[-1] // kernel.shape[2]
    parts = zip(ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-1), strict=True)
    return ops.concatenate([ops.conv(*part, strides, padding) for part in parts], axis=-1)


@functools.cache
def has_gradient_kernel(dtype: Any) -> bool:
    """Says if TensorFlow has a gradient of its grouped convolution for a dtype here.

    No call tells, so a small one is tried, where TensorFlow places it.
    """
    import tensorflow as tf

    with tf.init_scope():
        kernel, upstream = tf.ones([1, 1, 1, 2], dtype), tf.ones([1, 1, 1, 2], dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 1, 1, 2],
                filter=kernel,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
        except tf.errors.OpError:
            return False
    return True


def _conv_with_split_gradient(
    x: Tensor, kernel: Tensor, strides: tuple[int, int], padding: str
) -> Tensor:
    """TensorFlow's convolution with the gradients of one convolution a group.

    Of what a CPU can do (one convolution a group, blocks of groups, a matrix product for each tap,
    depthwise convolutions, the filter's gradient as a convolution), this is the fastest or within
    a tenth of it for all stages of a ResNeXt-101 32x8d.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(x: Tensor, kernel: Tensor) -> tuple[Tensor, Callable]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            groups = x.shape[-1] // kernel.shape[2]
            parts = [tf.split(tensor, groups, axis=-1) for tensor in (x, kernel, upstream)]
            options = {"strides": [1, *strides, 1], "padding": padding.upper()}
            dx, dkernel = [], []
            for x_part, kernel_part, upstream_part in zip(*parts, strict=True):
                dx.append(
                    tf.raw_ops.Conv2DBackpropInput(
                        input_sizes=tf.shape(x_part),
                        filter=kernel_part,
                        out_backprop=upstream_part,
                        **options,
                    )
                )
                dkernel.append(
                    tf.raw_ops.Conv2DBackpropFilter(
                        input=x_part,
                        filter_sizes=kernel_part.shape,
                        out_backprop=upstream_part,
                        **options,
                    )
                )
            return tf.concat(dx, axis=-1), tf.concat(dkernel, axis=-1)

        return tf.nn.conv2d(x, kernel, strides, padding.upper()), gradient

    return convolve(x, tf.convert_to_tensor(kernel))  # the gradient is not of a variable
