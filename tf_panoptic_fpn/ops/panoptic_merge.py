"""Instances and the semantic map become one panoptic map."""

from typing import Any

from keras import ops

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.ops.canvas import make_canvas
from tf_panoptic_fpn.ops.gather import look_up
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.masks import paste_masks
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor

MASK_THRESHOLD = 0.5


def panoptic_merge(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    mask_probs: Tensor,
    semantic_classes: Tensor,
    thing_category_ids: Tensor,
    stuff_category_ids: Tensor,
    *,
    score_threshold: float = 0.5,
    overlap_threshold: float = 0.5,
    stuff_area: int = 4096,
) -> dict[str, Tensor]:
    """Merges the outputs for one image into a map where every pixel has at most one segment.

    Instances are painted by descending score, then stuff by ascending class, each only where
    nothing is yet; ids are 1, 2... in that order. `other` (semantic class 0) is never painted.
    Instances are pasted one at a time, so memory does not grow with their number; TensorFlow
    pastes them in their boxes, elsewhere they are pasted on the whole image.

    Args:
        boxes: float32 `[D, 4]`, yxyx, pixels of the original image.
        scores: float32 `[D]`, in any order.
        classes: int32 `[D]`, thing class; -1 is padding.
        mask_probs: float `[D, mh, mw]`, in the frame of the box; the mask is where it is >= 0.5.
        semantic_classes: int `[H0, W0]`, 0 `other`, then stuff.
        thing_category_ids: int `[K]`, data-set id of each thing class.
        stuff_category_ids: int `[S-1]`, of the same dtype, of semantic classes 1..S-1.
        score_threshold: float; instances below it are dropped.
        overlap_threshold: float; instances that are already painted over by more than this part of
            their mask are dropped.
        stuff_area: int; stuff with fewer pixels left is dropped.

    Returns:
        dict, M = D + S - 1; rows from `num_segments` on are 0, False and, of `category_ids`, -1.
        `panoptic_map`: int32 `[H0, W0]`, 0 void, ids 1..num_segments.
        `category_ids`: `[M]`, data-set ids, in their dtype; row i belongs to id i + 1.
        `is_thing`: bool `[M]`.
        `scores`: float32 `[M]`; 1 for stuff.
        `areas`: int32 `[M]`, pixels of the map.
        `boxes`: float32 `[M, 4]`, yxyx, tight around those pixels.
        `num_segments`: int32 `[]`.

    Reference: Panoptic Segmentation, arXiv:1801.00868, section 5, and Panoptic FPN,
    arXiv:1901.02446, section 3.
    """
    classes = ops.cast(classes, "int32")
    thing_ids = ops.convert_to_tensor(thing_category_ids)
    stuff_ids = ops.convert_to_tensor(stuff_category_ids)
    num_stuff, num_instances = stuff_ids.shape[0], scores.shape[0]
    # Labels of pixels: 0 `other`, the classes of stuff, and above them the ids of instances.
    size = sides(semantic_classes)
    painted, ids_of_instances, num_things = _paint_instances(
        boxes, scores, classes, mask_probs, size, num_stuff, score_threshold, overlap_threshold
    )
    labels = ops.where(painted == 0, ops.cast(semantic_classes, "int32"), painted)
    areas, tight_boxes = _measure(labels, 1 + num_stuff + num_instances)
    stuff_areas = areas[1 : 1 + num_stuff]
    is_kept = ops.logical_and(stuff_areas >= stuff_area, stuff_areas > 0)
    ids_of_stuff = num_things + ops.cumsum(ops.cast(is_kept, "int32"))
    ids_of_stuff = ops.where(is_kept, ids_of_stuff, 0)
    every_id = ops.arange(1, num_instances + 1, dtype="int32")
    id_of_label = ops.concatenate([ops.zeros((1,), dtype="int32"), ids_of_stuff, every_id], axis=0)

    ids = ops.concatenate([ids_of_instances, ids_of_stuff], axis=0)
    is_segment = ids > 0
    order = ops.argsort(ops.where(is_segment, ids, ids.shape[0] + 1))

    def by_id(of_instances: Tensor, of_stuff: Tensor, padding: Any = 0) -> Tensor:
        values = ops.concatenate([of_instances, of_stuff], axis=0)
        values = ops.where(is_segment, values, ops.full_like(values, padding))
        return look_up(values, order)

    label_of_id = by_id(num_stuff + ids_of_instances, ops.arange(1, num_stuff + 1, dtype="int32"))
    is_row = label_of_id > 0
    category_ids = look_up(thing_ids, ops.maximum(classes, 0))
    return {
        "panoptic_map": look_up(id_of_label, labels),
        "category_ids": by_id(category_ids, stuff_ids, -1),
        "is_thing": by_id(classes >= 0, ops.zeros_like(stuff_ids, dtype="bool")),
        "scores": by_id(ops.cast(scores, "float32"), ops.ones_like(stuff_ids, dtype="float32")),
        "areas": ops.where(is_row, look_up(areas, label_of_id), 0),
        "boxes": ops.where(is_row[:, None], look_up(tight_boxes, label_of_id), 0),
        "num_segments": ops.sum(ops.cast(is_segment, "int32")),
    }


def no_instances(count: int) -> dict[str, Tensor]:
    """Detections that are padding alone, for a model that does not detect."""
    return {
        schema.BOXES: ops.zeros((count, 4), "float32"),
        schema.SCORES: ops.zeros((count,), "float32"),
        schema.CLASSES: ops.full((count,), -1, "int32"),
        schema.MASK_PROBS: ops.zeros((count, 1, 1), "float32"),
    }


def _paint_instances(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    mask_probs: Tensor,
    size: tuple[Tensor, Tensor],
    offset: int,
    score_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (int32 `[H0, W0]`, `offset` + id or 0; int32 `[D]`, id or 0; number of ids)."""
    num_instances = scores.shape[0]
    order = ops.cast(ops.argsort(-scores), "int32")
    canvas = make_canvas(size)
    instances = ops.arange(num_instances, dtype="int32")

    def unfinished(rank: Tensor, labels: Tensor, ids: Tensor, count: Tensor) -> Tensor:
        best = look_up(order, ops.minimum(rank, num_instances - 1))
        return ops.logical_and(rank < num_instances, look_up(scores, best) >= score_threshold)

    def paint(rank: Tensor, labels: Tensor, ids: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        instance = look_up(order, rank)
        box = look_up(boxes, instance)
        window = canvas.around(box)
        probs = paste_masks(
            look_up(mask_probs, instance[None]),
            box[None],
            (window.height, window.width),
            (window.top, window.left),
        )[0]
        mask = probs >= MASK_THRESHOLD
        before = canvas.read(labels, window)
        free = ops.logical_and(mask, before == 0)
        area, free_area = _area(mask), _area(free)
        overlap = ops.cast(area - free_area, "float32") / ops.cast(ops.maximum(area, 1), "float32")
        painted = ops.logical_and(overlap <= overlap_threshold, free_area > 0)
        painted = ops.logical_and(painted, look_up(classes, instance) >= 0)
        count = count + ops.cast(painted, "int32")
        after = ops.where(ops.logical_and(free, painted), offset + count, before)
        ids = ops.where(ops.logical_and(instances == instance, painted), count, ids)
        return rank + 1, canvas.write(labels, window, after), ids, count

    zero = ops.convert_to_tensor(0, dtype="int32")
    _, labels, ids, count = ops.while_loop(
        unfinished, paint, (zero, canvas.blank(), ops.zeros_like(instances), zero)
    )
    return canvas.whole(labels), ids, count


def _measure(labels: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Returns (int32 `[L]` areas, float32 `[L, 4]` tight boxes) of labels 0..L-1."""
    in_rows, in_columns = (_counts(x, num_labels) for x in (labels, ops.transpose(labels)))
    (top, bottom), (left, right) = (call_shared(_extent, x) for x in (in_rows, in_columns))
    boxes = ops.cast(ops.stack([top, left, bottom, right], axis=-1), "float32")
    return ops.sum(in_rows, axis=0), boxes


def _counts(labels: Tensor, num_labels: int) -> Tensor:
    """Returns int32 `[rows, L]`, the pixels of each label in each row."""
    if use_tensorflow_kernels():
        import tensorflow as tf

        return tf.raw_ops.DenseBincount(
            input=labels, size=num_labels, weights=tf.zeros([0], tf.int32)
        )
    rows = sides(labels)[0]
    row_and_label = ops.arange(rows, dtype="int32")[:, None] * num_labels + labels
    flat = ops.reshape(row_and_label, [-1])
    counts = ops.segment_sum(ops.ones_like(flat), flat, num_segments=rows * num_labels)
    return ops.reshape(counts, (rows, num_labels))


def _extent(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns int32 `[L]` twice: the first row with pixels of a label, and that after the last."""
    is_there = ops.cast(counts > 0, "float32")  # no GPU finds the highest of int32
    first = ops.cast(ops.argmax(is_there, axis=0), "int32")
    from_the_end = ops.cast(ops.argmax(ops.flip(is_there, axis=0), axis=0), "int32")
    return first, sides(counts)[0] - from_the_end


def _area(mask: Tensor) -> Tensor:
    return ops.sum(ops.cast(mask, "int32"))
