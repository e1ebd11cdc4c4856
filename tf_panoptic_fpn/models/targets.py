"""What the heads are to predict: anchors and rois matched to ground truth, and sampled."""

from keras import ops

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.models.mask_head import MASK_SIZE
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.masks import crop_masks
from tf_panoptic_fpn.ops.matching import match_boxes
from tf_panoptic_fpn.ops.sampling import sample_labels, sample_rois
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor, Tensors

RPN_IOU = (0.3, 0.7)
ROI_IOU = 0.5
RPN_POSITIVE_FRACTION = 0.5
ROI_FOREGROUND_FRACTION = 0.25
ROW_PADDING = {
    schema.GT_BOXES: 0,
    schema.GT_CLASSES: -1,
    schema.GT_IS_CROWD: False,
    schema.GT_MASKS: 0,
}


def anchor_targets(anchors: Tensor, batch: Tensors, num_samples: int) -> tuple[Tensor, Tensor]:
    """Labels the anchors and samples some of them in each image.

    Args:
        anchors: float32 `[A, 4]`.
        batch: dict of `schema`: GT_BOXES, GT_CLASSES, GT_IS_CROWD, IMAGE_SEEDS.
        num_samples: int, anchors sampled in an image, at most half of them positive.

    Returns:
        labels int32 `[B, A]` (1 positive, 0 negative, -1 not sampled) and matched_boxes float32
        `[B, A, 4]`.

    Reference: Faster R-CNN, arXiv:1506.01497, section 3.1.
    """
    batch = _with_a_row(batch)
    gt_boxes = ops.cast(batch[schema.GT_BOXES], anchors.dtype)
    matched, labels = match_boxes(
        gt_boxes, _usable(batch), anchors, RPN_IOU, allow_low_quality=True
    )
    max_positives = int(num_samples * RPN_POSITIVE_FRACTION)
    labels = sample_labels(labels, num_samples, max_positives, batch[schema.IMAGE_SEEDS])
    return labels, take_rows(gt_boxes, matched)


def roi_targets(
    proposals: Tensor,
    proposal_scores: Tensor,
    anchor_indices: Tensor,
    batch: Tensors,
    num_samples: int,
    num_classes: int,
    foreground_iou: float = ROI_IOU,
) -> Tensors:
    """Adds the ground truth to the proposals, matches them and samples some in each image.

    Args:
        proposals: float32 `[B, R, 4]`.
        proposal_scores: float32 `[B, R]`; -inf is padding.
        anchor_indices: int32 `[B, R]`, the anchors that the proposals come from.
        batch: dict of `schema`: GT_BOXES, GT_CLASSES, GT_IS_CROWD, GT_MASKS, IMAGE_SEEDS.
        num_samples: int T, rois sampled in an image, at most a quarter of them foreground.
        num_classes: int K.
        foreground_iou: float, below it a roi is background.

    Returns:
        Dict: `rois` float32 `[B, T, 4]`, foreground first; `classes` int32 `[B, T]` (K is
        background); `matched_boxes` float32 `[B, T, 4]`; `is_valid` bool `[B, T]`;
        `masks` float32 `[B, T/4, 28, 28]` and `is_foreground` bool `[B, T/4]`, both for the first
        quarter, which holds every foreground roi.

    Reference: Fast R-CNN, arXiv:1504.08083, section 2.3.
    """
    batch = _with_a_row(batch)
    gt_boxes = ops.cast(batch[schema.GT_BOXES], proposals.dtype)
    gt_valid = _usable(batch)
    candidates = ops.concatenate([proposals, gt_boxes], axis=1)
    is_candidate = ops.concatenate([proposal_scores > float("-inf"), gt_valid], axis=1)
    gt_keys = -1 - ops.cumsum(ops.ones_like(batch[schema.GT_CLASSES]), axis=1)
    keys = ops.concatenate([anchor_indices, gt_keys], axis=1)
    thresholds = (foreground_iou, foreground_iou)
    matched, labels = match_boxes(
        gt_boxes, gt_valid, candidates, thresholds, allow_low_quality=False
    )
    max_foreground = int(num_samples * ROI_FOREGROUND_FRACTION)
    indices, is_foreground, is_valid = sample_rois(
        ops.where(is_candidate, labels, -1),
        keys,
        num_samples,
        max_foreground,
        batch[schema.IMAGE_SEEDS],
    )
    matched = take_rows(matched, indices)
    rois = take_rows(candidates, indices)
    gt_classes = take_rows(batch[schema.GT_CLASSES], matched)
    masks = crop_masks(
        batch[schema.GT_MASKS],
        gt_boxes,
        matched[:, :max_foreground],
        rois[:, :max_foreground],
        MASK_SIZE,
    )
    return {
        "rois": ops.stop_gradient(ops.where(is_valid[:, :, None], rois, 0.0)),
        "classes": ops.where(is_foreground, gt_classes, num_classes),
        "matched_boxes": take_rows(gt_boxes, matched),
        "is_valid": is_valid,
        "masks": ops.stop_gradient(masks),
        "is_foreground": is_foreground[:, :max_foreground],
    }


def ground_truth(batch: Tensors, dtype: str) -> Tensors:
    """What the later stages of a cascade match their rois to.

    Args:
        batch: dict of `schema`: GT_BOXES, GT_CLASSES, GT_IS_CROWD.
        dtype: of the boxes.

    Returns:
        Dict: `gt_boxes` `[B, N, 4]`, `gt_classes` int32 and `gt_is_valid` bool `[B, N]`, N >= 1.
    """
    batch = _with_a_row(batch)
    return {
        "gt_boxes": ops.cast(batch[schema.GT_BOXES], dtype),
        "gt_classes": batch[schema.GT_CLASSES],
        "gt_is_valid": _usable(batch),
    }


def trim_padding(batch: Tensors) -> Tensors:
    """Leaves out the rows of ground truth that are padding in every image, but for one.

    Matching costs as much for a row of padding as for an instance. Where shapes must not depend on
    data the batch stays as it is.

    Args:
        batch: dict of `schema`: GT_BOXES, GT_CLASSES, GT_IS_CROWD, and GT_MASKS or none.

    Returns:
        The batch with `[B, N', ...]` of each, N' >= 1 where N >= 1.
    """
    if not use_tensorflow_kernels():
        return batch
    places = ops.arange(1, sides(batch[schema.GT_CLASSES])[1] + 1, dtype="int32")
    used = ops.max(ops.where(batch[schema.GT_CLASSES] >= 0, places, 1), initial=1)
    return {**batch, **{name: batch[name][:, :used] for name in ROW_PADDING if name in batch}}


def _usable(batch: Tensors) -> Tensor:
    """Ground truth that trains: neither padding nor a crowd."""
    return (batch[schema.GT_CLASSES] >= 0) & ~batch[schema.GT_IS_CROWD]


def _with_a_row(batch: Tensors) -> Tensors:
    """Gives ground truth that has no rows, or may have none, a row of padding."""
    if batch[schema.GT_BOXES].shape[1]:
        return batch
    padded = {}
    for name, padding in ROW_PADDING.items():
        if name in batch:
            widths = [[0, 0], [0, 1]] + [[0, 0]] * (len(batch[name].shape) - 2)
            padded[name] = ops.pad(batch[name], widths, constant_values=padding)
    return {**batch, **padded}
