"""The random colour distortion of SSD."""

from collections.abc import Callable

import tensorflow as tf


def distort_color(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, each with a probability of a half.

    Brightness is shifted by up to 32 levels and comes first. Contrast and saturation are scaled by
    0.5 to 1.5, hue is turned by up to 36 degrees; contrast comes before these two or, with a
    probability of a half, after them.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        draws: float32 `[9]`, in [0, 1).

    Returns:
        uint8 `[H, W, 3]`.

    Reference: SSD, arXiv:1512.02325, section 2.2, with the ranges and the order of its code.
    """
    amounts = 2 * draws[:4] - 1  # in [-1, 1)
    is_on = draws[4:8] < 0.5
    contrast_is_first = draws[8] < 0.5

    def contrast(x: tf.Tensor) -> tf.Tensor:
        return _clipped(x * (1 + 0.5 * amounts[1]))

    x = tf.cast(image, tf.float32) / 255
    x = tf.cond(is_on[0], lambda: _clipped(x + amounts[0] * (32 / 255)), lambda: x)
    x = _applied(contrast, x, is_on[1] & contrast_is_first)
    x = _applied(lambda x: tf.image.adjust_saturation(x, 1 + 0.5 * amounts[2]), x, is_on[2])
    x = _applied(lambda x: tf.image.adjust_hue(x, 0.1 * amounts[3]), x, is_on[3])
    x = _applied(contrast, x, is_on[1] & ~contrast_is_first)
    return tf.cast(x * 255 + 0.5, tf.uint8)


def _applied(
    function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, condition: tf.Tensor
) -> tf.Tensor:
    return tf.cond(condition, lambda: function(x), lambda: x)


def _clipped(x: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(x, 0.0, 1.0)
