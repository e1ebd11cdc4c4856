"""Bilinear resizing of feature maps."""

import keras
from keras import ops


def resize_bilinear(x, size):
    """Resizes with half-pixel centres, without antialiasing.

    Args:
        x: float `[B, h, w, C]`.
        size: `(height, width)`, ints or, on TensorFlow, int32 scalars or a tensor `[2]`.

    Returns:
        float `[B, height, width, C]`, the dtype of `x`.
    """
    if keras.backend.backend() == "tensorflow":  # `keras.ops` takes static sizes only
        import tensorflow as tf

        return tf.cast(tf.image.resize(x, size), x.dtype)
    return ops.image.resize(x, size, interpolation="bilinear", antialias=False)


def upsample_bilinear(x, factor):
    """Resizes `[B, h, w, C]` to `[B, factor h, factor w, C]` with `resize_bilinear`."""
    height, width = ops.shape(x)[1:3]
    return resize_bilinear(x, (height * factor, width * factor))
