"""Decoding what a server is sent: what is wrong with an image is told, not raised."""

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.data.decode import decode_served_image, exif_orientation, turn_upright
from tf_panoptic_fpn.formats.images import FULL_RANGE

# How files begin, by their first bytes; None is any byte.
KINDS: dict[str, list[int | None]] = {
    "JPEG": [*b"\xff\xd8\xff"],
    "PNG": [*b"\x89PNG\r\n\x1a\n"],
    "WebP": [*b"RIFF", None, None, None, None, *b"WEBP"],
    "GIF": [*b"GIF8"],
    "BMP": [*b"BM"],
    "TIFF": [*b"II*\0"],
    "big-endian TIFF": [*b"MM\0*"],
}
SERVED = 2  # of these, the first ones
# What a dataset is made ready for takes longer than a small image.
_PLAIN = tf.data.Options()
_PLAIN.experimental_optimization.apply_default_optimizations = False
_PLAIN.autotune.enabled = False
_HEAD = 24  # bytes, as far as the size of a PNG


def read_served_image(
    data: tf.Tensor, max_pixels: int, pixel_range: tuple[int, int] = FULL_RANGE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes the bytes of a JPEG or PNG as upright RGB, or says why not.

    Args:
        data: string `[]`, the file.
        max_pixels: int; an image whose head says more is not decoded.
        pixel_range: see `formats.images.read_image`.

    Returns:
        uint8 `[H, W, 3]`, and string `[]`, what is wrong; with anything, no pixels, else empty.
    """
    head = tf.strings.substr(tf.strings.join([data, bytes(_HEAD)]), 0, _HEAD)
    head = tf.ensure_shape(tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32), [_HEAD])
    is_kind = _kinds(head)
    is_jpeg, is_png = is_kind[0], is_kind[1]
    nothing = tf.zeros([0, 0, 3], tf.uint8)

    def read(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sizes = tf.cond(
            is_jpeg,
            lambda: tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.float64),
            lambda: tf.where(is_png, _png_size(head), 0),
        )
        pixels = tf.reduce_prod(sizes)
        image = tf.cond(
            (pixels > 0) & (pixels <= max_pixels),
            lambda: decode_served_image(data, pixel_range),
            lambda: nothing,
        )
        return tf.ensure_shape(image, [None, None, 3]), pixels

    # A decoder's error would end the whole request; a dataset passes over it.
    files = tf.data.Dataset.from_tensors(data).map(read).ignore_errors().with_options(_PLAIN)
    image, pixels = files.reduce(
        (nothing, tf.constant(0, tf.float64)), lambda _, decoded: (decoded[0], decoded[1])
    )
    image = tf.ensure_shape(image, [None, None, 3])
    image = turn_upright(image, exif_orientation(data))
    count = tf.strings.as_string(pixels, precision=0)
    too_many = tf.strings.join(
        ["the image has ", count, f" pixels; at most {max_pixels} are served (serve.max_pixels)"]
    )
    named = [f"a {name} file is not served; send a JPEG or PNG" for name in KINDS][SERVED:]
    # The first that holds is told; the last one always does.
    holds = [tf.strings.length(data) == 0, *tf.unstack(is_kind[SERVED:])]
    holds += [pixels > max_pixels, tf.size(image) == 0, True]
    texts = ["the image is empty", *named, too_many, "the image cannot be decoded", ""]
    return image, tf.gather(tf.stack(texts), tf.where(tf.stack(holds))[0, 0])


def _kinds(head: tf.Tensor) -> tf.Tensor:
    """bool `[kinds]`, whether a file begins as those of KINDS do."""
    begins = [[*kind, *[None] * (_HEAD - len(kind))] for kind in KINDS.values()]
    is_any = np.array([[byte is None for byte in kind] for kind in begins])
    bytes_ = np.array([[byte or 0 for byte in kind] for kind in begins], np.int32)
    return tf.reduce_all((head == bytes_) | is_any, axis=1)


def _png_size(head: tf.Tensor) -> tf.Tensor:
    """Float64 `[2]`: width and height, of any number of 32 bits."""
    digits = tf.reshape(tf.cast(head[16:24], tf.float64), [2, 4])
    return tf.linalg.matvec(digits, tf.constant([2.0**24, 2.0**16, 2.0**8, 1.0], tf.float64))
