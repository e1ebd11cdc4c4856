"""Greedy non-maximum suppression."""

from keras import ops

from tf_panoptic_fpn.ops.boxes import pairwise_iou
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Tensor | None = None
) -> Tensor:
    """Keeps each box that no kept box of a higher score overlaps; solves P problems at once.

    Args:
        boxes: float32 `[P, n, 4]`, yxyx, in any order.
        scores: float32 `[P, n]`; -inf marks an invalid box, which is not kept and suppresses none.
            Of equal scores the lower index counts as higher.
        iou_threshold: float; a box is suppressed where its IoU is above it.
        groups: int `[P, n]`, e.g. classes; boxes of different groups do not suppress each other.
            None: all boxes of a problem are one group.

    Returns:
        bool `[P, n]`, True for the boxes that are kept.
    """
    # TensorFlow's kernel takes no float64.
    if use_tensorflow_kernels() and full_dtype(boxes.dtype) == "float32":
        return native_nms(boxes, scores, iou_threshold, groups)
    return portable_nms(boxes, scores, iou_threshold, groups)


def portable_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Tensor | None = None
) -> Tensor:
    """`nms` in `keras.ops`; XLA compiles it.

    Starting from all boxes, "kept = no kept box of a higher score overlaps" is applied until
    nothing changes. The j-th best box is settled after j passes at the latest, so the result is
    that of the greedy loop; a few passes are the rule.
    """
    boxes, scores = ops.stop_gradient(boxes), ops.stop_gradient(scores)
    order = ops.cast(ops.argsort(-scores, axis=1), "int32")
    boxes = take_rows(boxes, order)
    valid = take_rows(scores, order) > -float("inf")
    rank = ops.arange(sides(scores)[1], dtype="int32")
    # suppresses[p, i, j]: box i, if kept, suppresses box j.
    suppresses = ops.logical_and(
        pairwise_iou(boxes, boxes) > iou_threshold, rank[:, None] < rank[None, :]
    )
    if groups is not None:
        groups = take_rows(groups, order)
        suppresses = ops.logical_and(suppresses, groups[:, :, None] == groups[:, None, :])

    def settle(kept: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        suppressed = ops.any(ops.logical_and(kept[:, :, None], suppresses), axis=1)
        settled = ops.logical_and(valid, ops.logical_not(suppressed))
        return settled, ops.any(settled != kept)

    kept, _ = ops.while_loop(
        lambda kept, changed: changed, settle, (valid, ops.convert_to_tensor(True))
    )
    rank_of_box = ops.cast(ops.argsort(order, axis=1), "int32")
    return take_rows(kept, rank_of_box)


def _not_overlapped(overlap: Tensor, scores: Tensor) -> Tensor:
    """Greedy suppression as in `portable_nms`, by products, which are fast where there is no XLA.

    Args:
        overlap: bool `[n, n]`.
        scores: float `[n]`.

    Returns:
        bool `[n]`, True for the boxes that are kept.
    """
    import tensorflow as tf

    rank = tf.argsort(tf.argsort(scores, direction="DESCENDING", stable=True))
    suppresses = tf.cast(overlap & (rank[:, None] < rank), "float32")

    def settle(kept: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        settled = tf.linalg.matvec(suppresses, tf.cast(kept, "float32"), transpose_a=True) == 0
        return settled, tf.reduce_any(settled != kept)

    kept, _ = tf.while_loop(
        lambda kept, changed: changed,
        settle,
        (tf.fill(tf.shape(scores), True), tf.constant(True)),
        shape_invariants=(tf.TensorShape([None]), tf.TensorShape([])),
    )
    return kept


def native_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Tensor | None = None
) -> Tensor:
    """`nms` with TensorFlow's kernels; XLA does not compile it."""
    import tensorflow as tf

    def keep_one(problem: tuple[Tensor, ...]) -> Tensor:
        boxes, scores = problem[:2]
        valid = tf.cast(tf.where(scores > -float("inf"))[:, 0], tf.int32)
        boxes, scores = tf.gather(boxes, valid), tf.gather(scores, valid)
        count = tf.shape(valid)[0]
        if groups is None and boxes.dtype == tf.float32:
            kept = tf.image.non_max_suppression(boxes, scores, count, iou_threshold)
        else:
            overlap = pairwise_iou(boxes, boxes) > iou_threshold
            if groups is not None:
                group = tf.gather(problem[2], valid)
                overlap = tf.logical_and(overlap, group[:, None] == group[None, :])
            kept = tf.cast(tf.where(_not_overlapped(overlap, scores))[:, 0], tf.int32)
        at = tf.gather(valid, kept)[:, None]
        return tf.scatter_nd(at, tf.ones_like(kept), tf.shape(problem[1])) > 0

    boxes, scores = tf.stop_gradient(boxes), tf.stop_gradient(scores)
    problems = (boxes, scores) if groups is None else (boxes, scores, groups)
    return tf.map_fn(
        keep_one, problems, fn_output_signature=tf.TensorSpec(scores.shape[1:], "bool")
    )
