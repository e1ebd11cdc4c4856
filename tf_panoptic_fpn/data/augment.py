"""Training samples and their geometric augmentation.

A sample is a dict of numpy arrays of one image, under the keys of the batch that it becomes a part
of (`schema`), before padding: `images` uint8 [H, W, 3], `semantic` uint8 [H, W], `gt_boxes` float32
[n, 4], `gt_masks` uint8 [n, 112, 112], and what does not depend on geometry. Masks are in the frame
of their own box, so that resizing leaves them as they are and a flip mirrors them.
"""

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.images import resize_image, resize_labels


def box_frame_masks(ids, segment_ids, boxes, size=schema.GT_MASK_SIZE):
    """Samples the mask of each instance on a fixed grid over its box.

    A cell is set where the mask, interpolated bilinearly between pixel centres, is at least 0.5 at
    the cell's centre: the rule by which Mask R-CNN makes its mask targets.

    Args:
        ids: int `[H, W]`, segment ids.
        segment_ids: int `[n]`, the id of each instance.
        boxes: float `[n, 4]`, yxyx, pixels of the map, each of some height and width.
        size: int, cells along each side.

    Returns:
        uint8 `[n, size, size]`, 0 or 1.
    """
    masks = np.zeros((len(segment_ids), size, size), np.uint8)
    for mask, segment_id, (y1, x1, y2, x2) in zip(masks, segment_ids, boxes, strict=True):
        top, bottom, y_weight = _neighbours(y1, y2, size, ids.shape[0])
        left, right, x_weight = _neighbours(x1, x2, size, ids.shape[1])
        columns = np.concatenate([left, right])
        upper, lower = (ids[rows[:, None], columns] == segment_id for rows in (top, bottom))
        rows = upper + y_weight[:, None] * (lower.astype(np.float32) - upper)
        values = rows[:, :size] + x_weight * (rows[:, size:] - rows[:, :size])
        mask[:] = values >= 0.5
    return masks


def resize_sample(sample, size):
    """Resizes a sample: the image bilinearly, labels to the nearest.

    Args:
        sample: dict, see the head of this module.
        size: `(height, width)`, ints.

    Returns:
        A new dict.
    """
    height, width = sample[schema.IMAGES].shape[:2]
    scale = np.array([size[0] / height, size[1] / width] * 2, np.float32)
    return {
        **sample,
        schema.IMAGES: resize_image(sample[schema.IMAGES], size),
        schema.SEMANTIC: resize_labels(sample[schema.SEMANTIC], size),
        schema.GT_BOXES: sample[schema.GT_BOXES] * scale,
    }


def flip_sample(sample):
    """Mirrors a sample left to right.

    Args:
        sample: dict, see the head of this module.

    Returns:
        A new dict.
    """
    width = sample[schema.IMAGES].shape[1]
    y1, x1, y2, x2 = sample[schema.GT_BOXES].T
    return {
        **sample,
        schema.IMAGES: sample[schema.IMAGES][:, ::-1],
        schema.SEMANTIC: sample[schema.SEMANTIC][:, ::-1],
        schema.GT_BOXES: np.stack([y1, width - x2, y2, width - x1], axis=-1),
        schema.GT_MASKS: sample[schema.GT_MASKS][:, :, ::-1],
    }


def _neighbours(start, stop, size, extent):
    """The two pixels on either side of each cell centre, and the weight of the second."""
    centres = start + (np.arange(size, dtype=np.float32) + 0.5) * ((stop - start) / size) - 0.5
    first = np.floor(centres)
    pixels = np.clip([first, first + 1], 0, extent - 1).astype(np.intp)
    return pixels[0], pixels[1], centres - first
