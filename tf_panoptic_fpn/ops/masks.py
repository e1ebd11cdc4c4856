"""Instance masks, in the frame of their box."""

from keras import ops

from tf_panoptic_fpn.ops.boxes import MIN_SIZE
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.roi_align import axis_weights
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor


def paste_masks(
    mask_probs: Tensor, boxes: Tensor, image_size: Tensor, origin: tuple[Tensor, Tensor] = (0, 0)
) -> Tensor:
    """Resizes each box-sized mask onto the image canvas, bilinear and half-pixel aligned.

    Args:
        mask_probs: float `[D, mh, mw]`, in [0, 1].
        boxes: float32 `[D, 4]`, yxyx, pixels of the canvas; boxes without area are padding.
        image_size: (H, W), ints or an int32 `[2]` tensor.
        origin: (y, x), ints: where the canvas begins, in pixels that the boxes count in.

    Returns:
        float32 `[D, H, W]`, probabilities; 0 outside the box, and for boxes without area. Pixel
        centres at the rim of the box, less than half a mask cell inside, fade towards 0.

    Reference: Mask R-CNN, arXiv:1703.06870, section 3.
    """
    _, mask_height, mask_width = sides(mask_probs)
    (top, left), (height, width) = origin, (image_size[0], image_size[1])
    top_y, left_x, bottom_y, right_x = ops.unstack(boxes, axis=1)
    rows = call_shared(_paste_weights, top_y, bottom_y, top, height, mask_height)
    columns = call_shared(_paste_weights, left_x, right_x, left, width, mask_width)
    strips = ops.matmul(rows, ops.cast(mask_probs, rows.dtype))
    return ops.matmul(strips, ops.transpose(columns, [0, 2, 1]))


def crop_masks(
    gt_masks: Tensor, gt_boxes: Tensor, matched_index: Tensor, rois: Tensor, size: int
) -> Tensor:
    """Makes the mask targets: the matched ground truth, resampled to the grid of each roi.

    Args:
        gt_masks: uint8 `[B, N, s, s]`, 0 or 1, each in the frame of its own box.
        gt_boxes: float32 `[B, N, 4]`, yxyx; zero rows are padding.
        matched_index: int32 `[B, F]`, the ground truth of each roi.
        rois: float32 `[B, F, 4]`, yxyx.
        size: int, side of the targets.

    Returns:
        float32 `[B, F, size, size]`, 0 or 1: whether at least half of the cell is in the mask; 0
        outside the ground-truth box.
    """
    extent = gt_masks.shape[2]
    is_mask = ops.cast(gt_masks, "bool")  # no GPU gathers uint8
    masks, boxes = take_rows(is_mask, matched_index), take_rows(gt_boxes, matched_index)
    (box_start, box_end), (roi_start, roi_end) = (ops.split(x, 2, axis=-1) for x in (boxes, rois))
    scale = extent / ops.maximum(box_end - box_start, MIN_SIZE)
    start = (roi_start - box_start) * scale - 0.5
    length = (roi_end - roi_start) * scale
    weights = axis_weights(start, length, size, extent, sampling_ratio=0)
    rows, columns = weights[:, :, 0], ops.swapaxes(weights[:, :, 1], 2, 3)
    coverage = ops.matmul(ops.matmul(rows, ops.cast(masks, rows.dtype)), columns)
    return ops.cast(coverage >= 0.5, "float32")


def _paste_weights(
    start: Tensor, end: Tensor, first: Tensor, extent: Tensor, mask_extent: Tensor
) -> Tensor:
    """Returns `[D, extent, mask_extent]`, how much each mask cell weighs in the pixels from `first`
    on."""
    centers = ops.cast(first + ops.arange(extent, dtype="int32"), start.dtype) + 0.5
    size = (end - start)[:, None]
    has_size = size > 0
    cells = ops.cast(ops.arange(mask_extent, dtype="int32"), start.dtype)
    scale = ops.cast(mask_extent, start.dtype)
    position = (centers - start[:, None]) / ops.where(has_size, size, 1) * scale - 0.5
    distances = ops.abs(position[..., None] - cells)
    return ops.where(has_size[..., None], ops.relu(1 - distances), 0)
