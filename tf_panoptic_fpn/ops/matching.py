"""Which ground-truth box each anchor or proposal belongs to."""

from keras import ops

from tf_panoptic_fpn.ops.boxes import pairwise_iou
from tf_panoptic_fpn.schema import Tensor


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
    valid = ops.expand_dims(gt_valid, -1)
    iou = ops.where(valid, pairwise_iou(gt_boxes, boxes), -1)  # [B, N, A]
    best = ops.max(iou, axis=1)
    # Not of `iou` itself: of floats, Keras makes copies first, for a zero with a sign.
    matched_index = ops.argmax(iou == best[:, None], axis=1)
    positive = best >= high
    if allow_low_quality:
        best_of_gt = ops.max(iou, axis=2, keepdims=True)
        is_best = ops.logical_and(iou == best_of_gt, best_of_gt > 0)
        positive = ops.logical_or(positive, ops.any(is_best, axis=1))
    labels = ops.where(positive, 1, ops.where(best < low, 0, -1))
    return ops.cast(matched_index, "int32"), ops.cast(labels, "int32")
