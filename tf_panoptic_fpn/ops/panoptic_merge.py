"""Instances and the semantic map become one panoptic map."""

from typing import Any

from keras import ops

from tf_panoptic_fpn.ops.masks import paste_masks
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
    Instances are pasted one at a time, so memory does not grow with their number.

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
    panoptic_map, ids_of_instances, num_things = _paint_instances(
        boxes, scores, classes, mask_probs, semantic_classes, score_threshold, overlap_threshold
    )
    thing_ids = ops.convert_to_tensor(thing_category_ids)
    stuff_ids = ops.convert_to_tensor(stuff_category_ids)
    panoptic_map, ids_of_stuff = _paint_stuff(
        panoptic_map, semantic_classes, stuff_ids.shape[0], num_things, stuff_area
    )
    instance_category_ids = ops.take(thing_ids, ops.maximum(classes, 0), axis=0)

    ids = ops.concatenate([ids_of_instances, ids_of_stuff], axis=0)
    num_segments = ops.sum(ops.cast(ids > 0, "int32"))
    order = ops.argsort(ops.where(ids > 0, ids, ids.shape[0] + 1))

    def by_id(of_instances: Tensor, of_stuff: Tensor, padding: Any = 0) -> Tensor:
        values = ops.concatenate([of_instances, of_stuff], axis=0)
        values = ops.where(ids > 0, values, ops.full_like(values, padding))
        return ops.take(values, order, axis=0)

    areas, tight_boxes = _measure(panoptic_map, ids.shape[0])
    return {
        "panoptic_map": panoptic_map,
        "category_ids": by_id(instance_category_ids, stuff_ids, -1),
        "is_thing": by_id(classes >= 0, ops.zeros_like(stuff_ids, dtype="bool")),
        "scores": by_id(ops.cast(scores, "float32"), ops.ones_like(stuff_ids, dtype="float32")),
        "areas": areas,
        "boxes": tight_boxes,
        "num_segments": num_segments,
    }


def _paint_instances(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    mask_probs: Tensor,
    semantic_classes: Tensor,
    score_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (map, int32 `[D]` id of each instance or 0, number of ids)."""
    num_instances = scores.shape[0]
    order = ops.cast(ops.argsort(-scores), "int32")
    image_size = ops.shape(semantic_classes)
    instances = ops.arange(num_instances, dtype="int32")

    def unfinished(rank: Tensor, panoptic_map: Tensor, ids: Tensor, count: Tensor) -> Tensor:
        best = ops.take(order, ops.minimum(rank, num_instances - 1))
        return ops.logical_and(rank < num_instances, ops.take(scores, best) >= score_threshold)

    def paint(rank: Tensor, panoptic_map: Tensor, ids: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        instance = ops.take(order, rank)
        probs = paste_masks(
            ops.take(mask_probs, instance[None], axis=0),
            ops.take(boxes, instance[None], axis=0),
            image_size,
        )[0]
        mask = probs >= MASK_THRESHOLD
        free = ops.logical_and(mask, panoptic_map == 0)
        area, free_area = _area(mask), _area(free)
        overlap = ops.cast(area - free_area, "float32") / ops.cast(ops.maximum(area, 1), "float32")
        painted = ops.logical_and(overlap <= overlap_threshold, free_area > 0)
        painted = ops.logical_and(painted, ops.take(classes, instance) >= 0)
        count = count + ops.cast(painted, "int32")
        panoptic_map = ops.where(ops.logical_and(free, painted), count, panoptic_map)
        ids = ops.where(ops.logical_and(instances == instance, painted), count, ids)
        return rank + 1, panoptic_map, ids, count

    zero = ops.convert_to_tensor(0, dtype="int32")
    empty_map = ops.zeros_like(semantic_classes, dtype="int32")
    _, panoptic_map, ids, count = ops.while_loop(
        unfinished, paint, (zero, empty_map, ops.zeros_like(instances), zero)
    )
    return panoptic_map, ids, count


def _paint_stuff(
    panoptic_map: Tensor, semantic_classes: Tensor, num_stuff: int, count: Tensor, stuff_area: int
) -> tuple[Tensor, Tensor]:
    """Returns (map, int32 `[S-1]` id of each stuff class or 0); ids go on from `count`."""
    left_over = ops.where(panoptic_map == 0, ops.cast(semantic_classes, "int32"), 0)
    ones = ops.ones_like(ops.reshape(left_over, [-1]))
    areas = ops.segment_sum(ones, ops.reshape(left_over, [-1]), num_segments=num_stuff + 1)[1:]
    painted = ops.logical_and(areas >= stuff_area, areas > 0)
    ids = ops.where(painted, count + ops.cumsum(ops.cast(painted, "int32")), 0)
    ids_of_classes = ops.concatenate([ops.zeros((1,), dtype="int32"), ids], axis=0)
    return ops.where(panoptic_map == 0, ops.take(ids_of_classes, left_over), panoptic_map), ids


def _measure(panoptic_map: Tensor, max_segments: int) -> tuple[Tensor, Tensor]:
    """Returns (int32 `[M]` areas, float32 `[M, 4]` tight boxes) of ids 1..M."""
    height, width = ops.shape(panoptic_map)
    ids = ops.reshape(panoptic_map, [-1])
    rows = ops.arange(height, dtype="int32")[:, None] + ops.zeros_like(panoptic_map)
    columns = ops.arange(width, dtype="int32")[None, :] + ops.zeros_like(panoptic_map)
    rows, columns = ops.reshape(rows, [-1]), ops.reshape(columns, [-1])

    def highest(values: Tensor) -> Tensor:
        return ops.segment_max(values, ids, num_segments=max_segments + 1)[1:]

    areas = ops.segment_sum(ops.ones_like(ids), ids, num_segments=max_segments + 1)[1:]
    sides = [-highest(-rows), -highest(-columns), highest(rows) + 1, highest(columns) + 1]
    boxes = ops.cast(ops.stack(sides, axis=-1), "float32")
    return areas, ops.where(areas[:, None] > 0, boxes, 0)


def _area(mask: Tensor) -> Tensor:
    return ops.sum(ops.cast(mask, "int32"))
