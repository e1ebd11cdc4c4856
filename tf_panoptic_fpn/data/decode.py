"""Decoding images and id maps in TensorFlow ops, pixel for pixel as Pillow does."""

import io

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.data.python_calls import python_function
from tf_panoptic_fpn.formats.images import FULL_RANGE, read_image, read_label_png


def decode_image(
    data: tf.Tensor,
    orientation: tf.Tensor,
    with_pillow: tf.Tensor,
    pixel_range: tuple[int, int] = FULL_RANGE,
) -> tf.Tensor:
    """Decodes an image file as upright RGB; the bytes decide what it is, not its name.

    Args:
        data: string `[]`, the file.
        orientation: uint8 `[]`, EXIF, 1 to 8.
        with_pillow: bool `[]`, for a file that TensorFlow reads otherwise than Pillow.
        pixel_range: see `formats.images.read_image`.

    Returns:
        uint8 `[H, W, 3]`.
    """

    def pillow() -> tf.Tensor:
        return python_function(lambda d: read_image(_file(d), pixel_range), [data], tf.uint8)

    def plain() -> tf.Tensor:
        return decode_plain_image(data, orientation)

    return tf.ensure_shape(tf.cond(with_pillow, pillow, plain), [None, None, 3])


def decode_plain_image(data: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`decode_image` of a JPEG or PNG that TensorFlow reads as Pillow does; no Python is run."""
    return turn_upright(_stored_image(data), orientation)


def _stored_image(data: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(data, channels=3),
    )


def decode_served_image(data: tf.Tensor, pixel_range: tuple[int, int] = FULL_RANGE) -> tf.Tensor:
    """Decodes the bytes of a JPEG or PNG as RGB, as it is stored and as a SavedModel does: no
    Python is run.

    Args:
        data: string `[]`, the file.
        pixel_range: of 16-bit grey PNGs, see `formats.images.read_image`.

    Returns:
        uint8 `[H, W, 3]`; `turn_upright` is to follow.
    """
    head = tf.io.decode_raw(tf.strings.substr(tf.strings.join([data, bytes(26)]), 0, 26), tf.uint8)
    # The bytes at 24 and 25 are the bit depth and the kind, 0 for grey.
    is_deep = tf.reduce_all(head[:4] == list(b"\x89PNG")) & (head[24] == 16) & (head[25] == 0)
    low, high = pixel_range

    def deep() -> tf.Tensor:
        grey = tf.clip_by_value(tf.cast(tf.io.decode_png(data, 1, tf.uint16), tf.int32), low, high)
        return tf.repeat(tf.cast((grey - low) * 255 // (high - low), tf.uint8), 3, axis=-1)

    return tf.cond(is_deep, deep, lambda: _stored_image(data))


def exif_orientation(data: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation in the first 64 KiB of a JPEG.

    Args:
        data: string `[]`, the file.

    Returns:
        uint8 `[]`, 1 to 8; 1, upright, where there is none or it breaks the format.

    Reference: Exif 2.3, section 4.7.2 (the APP1 segment); TIFF 6.0, section 2.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, 1 << 16), tf.uint8)
    head = tf.pad(tf.cast(head, tf.int64), [[0, 1]])  # what is beyond the end is 0
    end = tf.size(head, tf.int64) - 1

    def byte(position: tf.Tensor) -> tf.Tensor:
        return tf.gather(head, tf.minimum(position, end))

    positions = tf.range(end)
    marker = {0: 0xFF, 1: 0xE1} | dict(enumerate(b"Exif\0\0", start=4))
    is_start = tf.reduce_all(byte(positions[:, None] + [*marker]) == [*marker.values()], axis=1)
    tiff = tf.concat([tf.boolean_mask(positions, is_start), [end]], 0)[0] + 10
    is_little = byte(tiff) == ord("I")

    def number(position: tf.Tensor, size: int) -> tf.Tensor:
        digits = byte(position[..., None] + np.arange(size))
        worth = tf.where(is_little, 256 ** np.arange(size), 256 ** np.arange(size)[::-1])
        return tf.reduce_sum(digits * worth, axis=-1)

    directory = tiff + number(tiff + 4, 4)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    is_orientation = number(entries, 2) == 0x0112
    found = tf.boolean_mask(number(entries + 8, 2), is_orientation)
    value = tf.concat([found, [1]], 0)[0]
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.uint8)


def decode_id_map(data: tf.Tensor, map_format: str, with_pillow: tf.Tensor) -> tf.Tensor:
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

    def pillow() -> tf.Tensor:
        return python_function(lambda d: read_label_png(_file(d)), [data], tf.int32)

    def plain() -> tf.Tensor:
        # The byte at 24 is the bit depth. Decoded to 16 bits, 8-bit values would be stretched.
        return tf.cond(
            tf.strings.substr(data, 24, 1) == b"\x10",
            lambda: tf.cast(tf.io.decode_png(data, 1, tf.uint16), tf.int32)[..., 0],
            lambda: tf.cast(tf.io.decode_png(data, 1), tf.int32)[..., 0],
        )

    return tf.ensure_shape(tf.cond(with_pillow, pillow, plain), [None, None])


def _file(data: bytes | np.ndarray) -> io.BytesIO:
    """What Python gets of a string tensor, bytes or eagerly an array of them, as a file."""
    return io.BytesIO(np.asarray(data, object).item())


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image, `[H, W, C]`, by its EXIF orientation, uint8 `[]`."""
    return tf.cond(orientation == 1, lambda: image, lambda: _turned(image, orientation))


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    upside_down, mirrored = np.zeros((2, 9), bool)
    upside_down[[3, 4, 7, 8]] = mirrored[[2, 3, 6, 7]] = True
    for axis, is_reversed in enumerate((upside_down, mirrored)):
        reverse = tf.gather(is_reversed, tf.cast(orientation, tf.int32))
        turned = tf.cond(reverse, lambda x=turned, a=axis: tf.reverse(x, [a]), lambda x=turned: x)
    return turned
