"""Boundary IoU: the overlap of the borders of masks, of instances and of semantic maps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.metrics.semantic_iou import check_semantic_maps, usual_ignored

DILATION_RATIO = 0.02  # of the image's diagonal


def mask_boundary(mask: np.ndarray) -> np.ndarray:
    """The part of a mask within a distance of its border, which the edge of the image is part of.

    The distance is 2 % of the image's diagonal, in pixels, at least 1; diagonal steps count 1.

    Args:
        mask: bool or uint8 `[H, W]`, 0 or 1.

    Returns:
        uint8 `[H, W]`, 0 or 1.

    Reference: Boundary IoU, arXiv:2103.16562, section 4.
    """
    mask = np.asarray(mask, np.uint8)
    boundary = mask.copy()
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if rows.size:
        box = boundary[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        _clear_inside(box, _distance(mask.shape))
    return boundary


def _distance(image_size: Sequence[int]) -> int:
    return max(round(DILATION_RATIO * math.hypot(*image_size)), 1)


def _clear_inside(box: np.ndarray, distance: int) -> None:
    """Sets to 0 what is further from the border than a distance; `box`: around the mask."""
    size = 2 * distance + 1
    if min(box.shape) >= size:
        # A pixel is inside if the square around it is full; sums of squares by an integral image.
        sums = np.zeros((box.shape[0] + 1, box.shape[1] + 1), np.int32)
        box.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, out=sums[1:, 1:])
        squares = sums[size:, size:] - sums[:-size, size:]
        squares -= sums[size:, :-size]
        squares += sums[:-size, :-size]
        box[distance:-distance, distance:-distance][squares == size**2] = 0


class InstanceBoundary:
    """The boundary of the mask of one instance, kept inside its box.

    Args:
        counts: int `[c]`, the run lengths of the mask, down the columns, background first.
        box: its tight box, xywh.
        image_size: (H, W).
    """

    def __init__(
        self, counts: np.ndarray, box: Sequence[float], image_size: tuple[int, int]
    ) -> None:
        self._left, self._top, width, height = (int(value) for value in box)
        ends = np.clip(np.cumsum(counts) - self._left * image_size[0], 0, width * image_size[0])
        is_mask = (np.arange(len(ends)) % 2).astype(np.uint8)
        columns = np.repeat(is_mask, np.diff(ends, prepend=0)).reshape(width, image_size[0])
        self._columns = columns[:, self._top : self._top + height].copy()
        _clear_inside(self._columns, _distance(image_size))
        self._area = np.count_nonzero(self._columns)

    def iou(self, other: "InstanceBoundary") -> float:
        """Intersection over union of two boundaries in one image."""
        windows = []
        for first, second in ((self, other), (other, self)):
            x, y = max(second._left - first._left, 0), max(second._top - first._top, 0)
            x_end, y_end = (
                second._left + second._columns.shape[0] - first._left,
                second._top + second._columns.shape[1] - first._top,
            )
            windows.append(first._columns[x : max(x_end, 0), y : max(y_end, 0)])
        shared = np.count_nonzero(windows[0] & windows[1])
        return shared / (self._area + other._area - shared)


class BoundaryIoU:
    """Streaming boundary IoU of semantic maps: intersection over union of the classes' boundaries.

    Pixels that the ground truth ignores belong to no class in either map, so that both maps have
    the same boundary there.

    Args:
        class_names: list of S distinct names, by class index.
        ignored: int, see `SemanticIoU`.
    """

    def __init__(self, class_names: Sequence[str], ignored: int | None = None) -> None:
        self.class_names = list(class_names)
        self._ignored = usual_ignored(class_names) if ignored is None else ignored
        self._intersection = np.zeros(len(class_names), np.int64)
        self._gt, self._pred = self._intersection.copy(), self._intersection.copy()

    def update(self, gt: np.ndarray, pred: np.ndarray, image: str = "") -> None:
        """Adds one image; see `SemanticIoU.update`."""
        gt, pred = check_semantic_maps(gt, pred, len(self.class_names), self._ignored, image)
        is_labelled = gt != self._ignored
        for class_index in np.union1d(gt[is_labelled], pred[is_labelled]).tolist():
            gt_boundary, pred_boundary = (
                mask_boundary((classes == class_index) & is_labelled) for classes in (gt, pred)
            )
            self._gt[class_index] += np.count_nonzero(gt_boundary)
            self._pred[class_index] += np.count_nonzero(pred_boundary)
            self._intersection[class_index] += np.count_nonzero(gt_boundary & pred_boundary)

    def merge(self, other: "BoundaryIoU") -> None:
        """Adds the images of another `BoundaryIoU` over the same classes.

        Raises:
            ValueError: if the classes differ.
        """
        if other.class_names != self.class_names:
            raise ValueError("`merge` needs two metrics over the same classes")
        self._intersection += other._intersection
        self._gt += other._gt
        self._pred += other._pred

    def result(self) -> dict[str, Any]:
        """Returns the figures of all images so far, as fractions.

        Returns:
            dict: `boundary_mIoU`, the mean over the classes that occur in the ground truth, and
            `per_class`, a dict class name -> boundary IoU, None for one that does not.
        """
        occurs = self._gt > 0
        union = self._gt + self._pred - self._intersection
        iou = self._intersection / np.where(occurs, union, 1)
        per_class = {
            name: float(value) if present else None
            for name, value, present in zip(self.class_names, iou, occurs, strict=True)
        }
        mean = float(iou[occurs].mean()) if occurs.any() else None
        return {"boundary_mIoU": mean, "per_class": per_class}
