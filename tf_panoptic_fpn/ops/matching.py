"""Which ground-truth box each anchor or proposal belongs to."""

from keras import ops

from tf_panoptic_fpn.ops.boxes import pairwise_iou
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor

GT_AT_A_TIME = 32  # to bound the memory of the IoUs


def match_boxes(
    gt_boxes: Tensor,
    gt_valid: Tensor,
    boxes: Tensor,
    thresholds: tuple[float, float],
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Matches each box to the ground truth that it overlaps most.

    Args:
        gt_boxes: float32 `[B, N, 4]`, yxyx.
        gt_valid: bool `[B, N]`, False for padding.
        boxes: float32 `[B, A, 4]` or `[A, 4]`, yxyx, anchors or proposals.
        thresholds: (low, high), IoU; they may be equal.
        allow_low_quality: whether the boxes that overlap a ground truth most, ties included, are
            positive below `high` too. A ground truth that overlaps no box makes none positive.

    Returns:
        (matched_index, labels), both int32 `[B, A]`: the ground truth of highest IoU (0 if there
        is none), and 1 positive (IoU >= high), 0 negative (IoU < low), -1 neither.

    Reference: Faster R-CNN, arXiv:1506.01497, section 3.1.2.
    """
    low, high = thresholds
    num_gt = sides(gt_boxes)[1]
    shape = (sides(gt_boxes)[0], sides(boxes)[-2])
    best = ops.full(shape, -1, dtype=boxes.dtype)
    state = (best, ops.zeros(shape, dtype="int32"), ops.zeros(shape, dtype="bool"))

    def match_more(first: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Matches the next ground truth too; of equal IoUs the earlier one stays."""
        best, matched_index, is_best = state
        rows = slice(first, first + GT_AT_A_TIME)
        valid = gt_valid[:, rows, None]
        iou = ops.where(valid, pairwise_iou(gt_boxes[:, rows], boxes), -1)  # [B, rows, A]
        best_here = ops.max(iou, axis=1)
        # Not of `iou` itself: of floats, Keras makes copies first, for a zero with a sign.
        index_here = first + ops.cast(ops.argmax(iou == best_here[:, None], axis=1), "int32")
        matched_index = ops.where(best_here > best, index_here, matched_index)
        if allow_low_quality:
            best_of_gt = ops.max(iou, axis=2, keepdims=True)
            is_best_here = ops.logical_and(iou == best_of_gt, best_of_gt > 0)
            is_best = ops.logical_or(is_best, ops.any(is_best_here, axis=1))
        return ops.maximum(best, best_here), matched_index, is_best

    if isinstance(num_gt, int):
        for first in range(0, num_gt, GT_AT_A_TIME):
            state = match_more(first, *state)
    else:
        _, *state = ops.while_loop(
            lambda first, *_: first < num_gt,
            lambda first, *state: (first + GT_AT_A_TIME, *match_more(first, *state)),
            (ops.convert_to_tensor(0, dtype="int32"), *state),
        )
    best, matched_index, is_best = state
    positive = ops.logical_or(best >= high, is_best)
    labels = ops.where(positive, 1, ops.where(best < low, 0, -1))
    return matched_index, ops.cast(labels, "int32")
