"""COCO's run-length code of an instance, made in a graph."""

import tensorflow as tf

from tf_panoptic_fpn.ops.masks import paste_masks
from tf_panoptic_fpn.ops.panoptic_merge import MASK_THRESHOLD

DIGITS = 7  # of 5 bits, enough for any int32


def encode_instance(mask_probs: tf.Tensor, box: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Encodes the mask of an instance at the size of its image; none is held at that size.

    Args:
        mask_probs: float32 `[mh, mw]`, in the frame of the box.
        box: float32 `[4]`, yxyx, pixels of the image, within it.
        size: int32 `[2]`, (H, W).

    Returns:
        string `[]`, the `counts` of COCO's compressed RLE.

    Reference: `rleEncode` and `rleToString` of pycocotools' `maskApi`.
    """
    top, left = tf.unstack(tf.cast(tf.floor(box[:2]), tf.int32))
    bottom, right = tf.unstack(tf.cast(tf.math.ceil(box[2:]), tf.int32))
    height, width = bottom - top, right - left
    probs = paste_masks(mask_probs[None], box[None], (height, width), (top, left))[0]
    mask = tf.cast(tf.transpose(probs >= MASK_THRESHOLD), tf.int32)  # column by column
    # A row of zeros ends each column, but where the window has columns of the image as a whole.
    column = height + tf.cast(height < size[0], tf.int32)
    mask = tf.reshape(tf.pad(mask, [[0, 0], [0, column - height]]), [-1])
    changes = tf.where(tf.concat([mask, [0]], 0) != tf.concat([[0], mask], 0))[:, 0]
    changes = tf.cast(changes, tf.int32)
    x, y = changes // tf.maximum(column, 1), changes % tf.maximum(column, 1)
    in_image = (left + x) * size[0] + top + y
    ends = tf.concat([[0], in_image, [size[0] * size[1]]], 0)
    counts = ends[1:] - ends[:-1]
    is_last_empty = counts[-1] == 0
    return encode_counts(counts[: tf.size(counts) - tf.cast(is_last_empty, tf.int32)])


def encode_counts(counts: tf.Tensor) -> tf.Tensor:
    """int32 `[n]`, lengths of runs -> string `[]`, as COCO writes them."""
    # From the fourth on, the difference to the last but one.
    before = tf.concat([[0, 0, 0], counts[1:]], 0)[: tf.size(counts)]
    values = tf.cast(counts - before, tf.int64)[:, None]
    shifts = 5 * tf.range(DIGITS, dtype=tf.int64)
    digits = tf.bitwise.right_shift(values, shifts) % 32
    rest = tf.bitwise.right_shift(values, shifts + 5)
    goes_on = tf.where(digits >= 16, rest != -1, rest != 0)
    is_digit = tf.math.cumprod(tf.cast(goes_on, tf.int32), axis=1, exclusive=True) > 0
    codes = tf.cast(digits, tf.int32) + 32 * tf.cast(goes_on, tf.int32) + 48
    return tf.strings.unicode_encode(tf.boolean_mask(codes, is_digit), "UTF-8")
