"""Simple copy-paste: instances of one training image on top of another."""

from collections.abc import Mapping

import tensorflow as tf

from tf_panoptic_fpn import schema

_PER_INSTANCE = (schema.GT_BOXES, schema.GT_MASKS, schema.GT_CLASSES, schema.GT_IS_CROWD)


def paste(
    sample: Mapping[str, tf.Tensor],
    pasted: Mapping[str, tf.Tensor],
    covered: tf.Tensor,
    max_instances: int,
) -> dict[str, tf.Tensor]:
    """Lays instances of another sample over a sample.

    What they hide leaves the masks beneath, whose boxes shrink to what is left (to a 112th of
    their size); an instance hidden altogether is dropped.

    Args:
        sample: dict, see `augment`; of H x W pixels.
        pasted: the same, of no more pixels each way, with the pasted instances only; its top left
            corner lies on that of `sample`.
        covered: bool, of the size of `pasted`; the pixels of its instances.
        max_instances: int, the largest are kept.

    Returns:
        A dict, see `augment`.

    Reference: arXiv:2012.07177, section 3; without its blending of outlines.
    """
    size = tf.shape(sample[schema.SEMANTIC])
    missing = tf.pad((size - tf.shape(covered))[:, None], [[0, 0], [1, 0]])
    image = tf.pad(pasted[schema.IMAGES], tf.pad(missing, [[0, 1], [0, 0]]))
    semantic = tf.pad(pasted[schema.SEMANTIC], missing)
    covered = tf.pad(covered, missing)
    boxes, masks = _visible(sample[schema.GT_BOXES], sample[schema.GT_MASKS], covered)
    shown = {**sample, schema.GT_BOXES: boxes, schema.GT_MASKS: masks}
    merged = {key: tf.concat([shown[key], pasted[key]], 0) for key in _PER_INSTANCE}
    heights, widths = tf.unstack(
        merged[schema.GT_BOXES][:, 2:] - merged[schema.GT_BOXES][:, :2], axis=-1
    )
    shares = tf.reduce_mean(tf.cast(merged[schema.GT_MASKS], tf.float32), [1, 2])
    kept = keep_largest(heights * widths * shares, max_instances)
    return {
        **{key: tf.gather(merged[key], kept) for key in _PER_INSTANCE},
        schema.IMAGES: tf.where(covered[..., None], image, sample[schema.IMAGES]),
        schema.SEMANTIC: tf.where(covered, semantic, sample[schema.SEMANTIC]),
    }


def keep_largest(areas: tf.Tensor, max_instances: int) -> tf.Tensor:
    """Chooses the instances that a sample keeps.

    Args:
        areas: `[n]`, of any numeric dtype; those of area 0 are dropped.
        max_instances: int.

    Returns:
        int32 `[k]`, positions in ascending order.
    """
    order = tf.argsort(areas, direction="DESCENDING", stable=True)[:max_instances]
    return tf.sort(tf.boolean_mask(order, tf.gather(areas, order) > 0))


def _visible(boxes: tf.Tensor, masks: tf.Tensor, covered: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes and masks `[n, s, s]` of what is not covered; a mask may come out empty."""
    cells = masks.shape[1]
    extents = (boxes[:, 2:] - boxes[:, :2]) / cells  # of a cell
    centres = (
        boxes[:, None, :2] + (tf.range(cells, dtype=tf.float32)[:, None] + 0.5) * (extents[:, None])
    )
    limits = tf.shape(covered) - 1
    rows, columns = tf.unstack(tf.clip_by_value(tf.cast(centres, tf.int32), 0, limits), axis=-1)
    pixels = rows[:, :, None] * tf.shape(covered)[1] + columns[:, None]
    is_hidden = tf.gather(tf.reshape(covered, [-1]), pixels)
    visible = tf.where(is_hidden, tf.zeros_like(masks), masks)

    first_row, last_row = _extent(tf.reduce_any(visible > 0, 2))
    first_column, last_column = _extent(tf.reduce_any(visible > 0, 1))
    first = tf.stack([first_row, first_column], -1)
    last = tf.stack([last_row, last_column], -1)
    start = boxes[:, :2] + tf.cast(first, tf.float32) * extents
    stop = boxes[:, :2] + tf.cast(last, tf.float32) * extents
    tight = tf.concat([start, stop], -1)
    framed = tf.gather(visible, _spread(first_row, last_row, cells), axis=1, batch_dims=1)
    framed = tf.gather(framed, _spread(first_column, last_column, cells), axis=2, batch_dims=1)
    # An instance that nothing hides keeps its box and its mask as they are.
    is_touched = tf.reduce_any(visible != masks, [1, 2])
    return (
        tf.where(is_touched[:, None], tight, boxes),
        tf.where(is_touched[:, None, None], framed, masks),
    )


def _extent(is_set: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last + 1 position that is set along the last axis, int32."""
    first = tf.argmax(is_set, -1, tf.int32)
    return first, tf.shape(is_set)[-1] - tf.argmax(is_set[..., ::-1], -1, tf.int32)


def _spread(first: tf.Tensor, last: tf.Tensor, cells: int) -> tf.Tensor:
    """The old cell under the centre of each of the new cells, which divide first..last."""
    steps = 2 * tf.range(cells) + 1
    return first[:, None] + steps * (last - first)[:, None] // (2 * cells)
