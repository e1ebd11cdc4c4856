"""Decoding images and id maps in TensorFlow ops, pixel for pixel as Pillow does."""

import io

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.data.images import read_image, read_label_png
from tf_panoptic_fpn.data.python_calls import python_function


def decode_image(data, orientation, with_pillow):
    """Decodes an image file as upright RGB; the bytes decide what it is, not its name.

    Args:
        data: string `[]`, the file.
        orientation: uint8 `[]`, EXIF, 1 to 8.
        with_pillow: bool `[]`, for a file that TensorFlow reads otherwise than Pillow.

    Returns:
        uint8 `[H, W, 3]`.
    """

    def pillow():
        return python_function(lambda d: read_image(_file(d)), [data], tf.uint8)

    def plain():
        image = tf.cond(
            tf.io.is_jpeg(data),
            lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_png(data, channels=3),
        )
        return tf.cond(orientation == 1, lambda: image, lambda: _upright(image, orientation))

    return tf.ensure_shape(tf.cond(with_pillow, pillow, plain), [None, None, 3])


def decode_id_map(data, map_format, with_pillow):
    """Decodes the map of an image.

    Args:
        data: string `[]`, a PNG.
        map_format: "rgb" or "grey", see `DatasetIndex`.
        with_pillow: bool `[]`, for a grey map that TensorFlow reads otherwise than Pillow.

    Returns:
        int32 `[H, W]`, ids.
    """
    if map_format == "rgb":
        # The four bytes of a pixel are a number, on all that TensorFlow runs on, lowest first.
        rgba = tf.bitcast(tf.io.decode_png(data, channels=4), tf.int32)
        return tf.bitwise.bitwise_and(rgba, 0xFFFFFF)

    def pillow():
        return python_function(lambda d: read_label_png(_file(d)), [data], tf.int32)

    def plain():
        # The byte at 24 is the bit depth. Decoded to 16 bits, 8-bit values would be stretched.
        return tf.cond(
            tf.strings.substr(data, 24, 1) == b"\x10",
            lambda: tf.cast(tf.io.decode_png(data, 1, tf.uint16), tf.int32)[..., 0],
            lambda: tf.cast(tf.io.decode_png(data, 1), tf.int32)[..., 0],
        )

    return tf.ensure_shape(tf.cond(with_pillow, pillow, plain), [None, None])


def _file(data):
    """What Python gets of a string tensor, bytes or eagerly an array of them, as a file."""
    return io.BytesIO(np.asarray(data, object).item())


def _upright(image, orientation):
    """Turns an image by its EXIF orientation."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    upside_down, mirrored = np.zeros((2, 9), bool)
    upside_down[[3, 4, 7, 8]] = mirrored[[2, 3, 6, 7]] = True
    for axis, is_reversed in enumerate((upside_down, mirrored)):
        reverse = tf.gather(is_reversed, tf.cast(orientation, tf.int32))
        turned = tf.cond(reverse, lambda x=turned, a=axis: tf.reverse(x, [a]), lambda x=turned: x)
    return turned
