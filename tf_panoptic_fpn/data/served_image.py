"""Decoding what a server is sent: what is wrong with an image is told, not raised."""

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.data.decode import decode_served_image, exif_orientation, turn_upright
from tf_panoptic_fpn.data.served_kinds import (
    DAMAGED,
    EMPTY,
    HEAD,
    KINDS,
    SERVED,
    TOO_LARGE,
    not_served,
)
from tf_panoptic_fpn.formats.images import FULL_RANGE

# What a dataset is made ready for takes longer than a small image.
_PLAIN = tf.data.Options()
_PLAIN.experimental_optimization.apply_default_optimizations = False
_PLAIN.autotune.enabled = False


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
    head = tf.strings.substr(tf.strings.join([data, bytes(HEAD)]), 0, HEAD)
    head = tf.ensure_shape(tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32), [HEAD])
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
    before, after = TOO_LARGE.format("\0", max_pixels).split("\0")
    too_large = tf.strings.join([before, count, after])
    named = [not_served(kind) for kind in KINDS][SERVED:]
    # The first that holds is told; the last one always does.
    holds = [tf.strings.length(data) == 0, *tf.unstack(is_kind[SERVED:])]
    holds += [pixels > max_pixels, tf.size(image) == 0, True]
    texts = [EMPTY, *named, too_large, DAMAGED, ""]
    return image, tf.gather(tf.stack(texts), tf.where(tf.stack(holds))[0, 0])


def _kinds(head: tf.Tensor) -> tf.Tensor:
    """bool `[kinds]`, whether a file begins as those of KINDS do."""
    begins = [[*kind, *[None] * (HEAD - len(kind))] for kind in KINDS.values()]
    is_any = np.array([[byte is None for byte in kind] for kind in begins])
    bytes_ = np.array([[byte or 0 for byte in kind] for kind in begins], np.int32)
    return tf.reduce_all((head == bytes_) | is_any, axis=1)


def _png_size(head: tf.Tensor) -> tf.Tensor:
    """Float64 `[2]`: width and height, of any number of 32 bits."""
    digits = tf.reshape(tf.cast(head[16:24], tf.float64), [2, 4])
    return tf.linalg.matvec(digits, tf.constant([2.0**24, 2.0**16, 2.0**8, 1.0], tf.float64))
