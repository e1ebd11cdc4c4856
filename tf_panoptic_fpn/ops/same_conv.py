"""A convolution that keeps the size, with a faster gradient where TensorFlow's kernel is slow."""

from collections.abc import Callable

from tf_panoptic_fpn.ops.grouped_conv import has_gradient_kernel
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.schema import Tensor


def has_slow_gradient(dtype: str) -> bool:
    """Says if `same_conv` is faster in the backward pass than TensorFlow's convolution, here.

    It is on a CPU without oneDNN, whose kernels are those that have a gradient for groups.
    """
    return use_tensorflow_kernels() and not has_gradient_kernel(dtype)


def same_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolves with stride 1 and zeros around; on the TensorFlow backend.

    The gradient to the input is a convolution too, of the output's gradient with the kernel turned
    around: two thirds to three quarters of the time of TensorFlow's own kernel for it.

    Args:
        x: float `[B, H, W, C]`.
        kernel: `[k, k, C, filters]`, k odd, the dtype of `x`.

    Returns:
        `[B, H, W, filters]`, the dtype of `x`.
    """
    import tensorflow as tf

    y = call_shared(_convolve, x, tf.convert_to_tensor(kernel))
    y.set_shape([*x.shape[:3], kernel.shape[3]])
    return y


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(x: Tensor, kernel: Tensor) -> tuple[Tensor, Callable]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            return tf.nn.conv2d(upstream, turned, 1, "SAME"), tf.raw_ops.Conv2DBackpropFilter(
                input=x,
                filter_sizes=tf.shape(kernel),
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )

        return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient

    return convolve(x, kernel)
