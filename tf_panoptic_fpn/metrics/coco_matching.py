"""Matching of the instances of one class by COCO's rules: all images and thresholds at once.

The IoUs are pycocotools', so that no rounding differs; what takes its time is the matching, which
it does image by image, size by size and threshold by threshold.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from tf_panoptic_fpn.masks.rle import run_lengths
from tf_panoptic_fpn.metrics.boundary_iou import InstanceBoundary

# As pycocotools makes them: .55 and others differ from the nearest float.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, s, m, l
MAX_DETECTIONS = 100  # of an image and category that count
_ROUNDING = 1e-6  # an IoU is not above its bound by more


@dataclasses.dataclass(frozen=True)
class Instances:
    """Instances of one class, ground truth or detections, in the order of their files.

    Attributes:
        images: int `[n]`, position of the image of each.
        areas: float64 `[n]`, by which COCO's sizes go.
        boxes: float64 `[n, 4]`, xywh; around the masks where masks are matched.
        masks: list of n RLEs, or None where boxes are matched.
        is_crowd: bool `[n]`, of ground truth.
        scores: float64 `[n]`, of detections.
    """

    images: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    masks: Sequence[dict[str, Any]] | None
    is_crowd: np.ndarray
    scores: np.ndarray

    def take(self, rows: np.ndarray) -> "Instances":
        """Those at some positions, in this order."""
        masks = None if self.masks is None else [self.masks[row] for row in rows.tolist()]
        arrays = (self.images, self.areas, self.boxes, self.is_crowd, self.scores)
        images, areas, boxes, is_crowd, scores = (values[rows] for values in arrays)
        return Instances(images, areas, boxes, masks, is_crowd, scores)

    def shapes(self, rows: list[int]) -> Any:
        """The masks, or else boxes, at some positions, for `pycocotools.mask.iou`."""
        return self.boxes[rows] if self.masks is None else [self.masks[row] for row in rows]

    def boundaries(self, rows: list[int]) -> dict[int, InstanceBoundary]:
        """The boundaries of the masks at some positions of one image, by position."""
        rows = [*dict.fromkeys(rows)]
        rles = self.shapes(rows)
        size = rles[0]["size"]
        counts = zip(rows, run_lengths(rles), strict=True)
        return {row: InstanceBoundary(runs, self.boxes[row], size) for row, runs in counts}


@dataclasses.dataclass(frozen=True)
class Matches:
    """What became of the detections of one class, image by image, the best score first.

    Attributes:
        scores: float64 `[D]`.
        ranks: int `[D]`, 0 for the best of an image.
        is_found: bool `[D, T, A]`, matched at an IoU threshold and for a range of areas.
        is_ignored: bool `[D, T, A]`, neither right nor wrong.
        num_gt: int `[A]`, ground truth that is to be found.
    """

    scores: np.ndarray
    ranks: np.ndarray
    is_found: np.ndarray
    is_ignored: np.ndarray
    num_gt: np.ndarray


def match(gt: Instances, detections: Instances, by_boundary: bool = False) -> Matches:
    """Matches the detections of one class with its ground truth.

    In each image the detections choose by score, the best first: the ground truth of the highest
    IoU that is left, the last of equals; one outside the range of areas, or a crowd, which is never
    used up, only if there is no other.

    Args:
        gt: ground truth.
        detections: at most `MAX_DETECTIONS` of an image count.
        by_boundary: whether the smaller of mask IoU and boundary IoU counts; see `boundary_iou`.

    Returns:
        `Matches`.
    """
    gt = gt.take(np.argsort(gt.images, kind="stable"))
    order = np.lexsort((-detections.scores, detections.images))
    ranks = _places(detections.images[order])
    counts = ranks < MAX_DETECTIONS
    detections, ranks = detections.take(order[counts]), ranks[counts]

    low, high = AREA_RANGES.T
    gt_ignored = (gt.areas[:, None] < low) | (gt.areas[:, None] > high) | gt.is_crowd[:, None]
    is_outside = (detections.areas[:, None] < low) | (detections.areas[:, None] > high)
    shape = len(ranks), len(IOU_THRESHOLDS), len(AREA_RANGES)
    matches = Matches(
        scores=detections.scores,
        ranks=ranks,
        is_found=np.zeros(shape, bool),
        is_ignored=np.repeat(is_outside[:, None], shape[1], axis=1),
        num_gt=np.count_nonzero(~gt_ignored, axis=0),
    )
    pairs = _candidates(gt, detections, by_boundary)
    is_taken = np.zeros((len(gt.images), *shape[1:]), bool)
    for step in _steps(detections.images, pairs[0]):
        _choose(step, pairs, gt, gt_ignored, is_taken, matches)
    return matches


def _places(groups: np.ndarray) -> np.ndarray:
    """The position of each entry within its group; equal values stand together."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))


def _candidates(
    gt: Instances, detections: Instances, by_boundary: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one image that reach the lowest threshold.

    Returns:
        `(rows, columns, ious)`: positions of the detections, ascending, and of the ground truth.
    """
    starts, ends = (
        np.searchsorted(gt.images, detections.images, side) for side in ("left", "right")
    )
    rows = np.repeat(np.arange(len(starts)), ends - starts)
    columns = starts[rows] + _places(rows)
    threshold = IOU_THRESHOLDS[0]
    near = _iou_bounds(gt, detections, rows, columns) > threshold - _ROUNDING
    rows, columns = rows[near], columns[near]
    ious = _pair_ious(gt, detections, rows, columns)
    if by_boundary:
        counts = (ious >= threshold) & ~gt.is_crowd[columns]
        of_boundaries = _boundary_ious(gt, detections, rows[counts], columns[counts])
        ious[counts] = np.minimum(ious[counts], of_boundaries)
    reached = ious >= threshold
    return rows[reached], columns[reached], ious[reached]


def _iou_bounds(
    gt: Instances, detections: Instances, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """What the IoU of each pair is at most, by the boxes and, of masks, the areas."""
    boxes, gt_boxes = detections.boxes[rows], gt.boxes[columns]
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], gt_boxes[:, :2] + gt_boxes[:, 2:])
    shared = np.maximum(ends - np.maximum(boxes[:, :2], gt_boxes[:, :2]), 0).prod(axis=1)
    if detections.masks is None or gt.masks is None:
        areas, gt_areas = boxes[:, 2:].prod(axis=1), gt_boxes[:, 2:].prod(axis=1)
    else:
        areas, gt_areas = detections.areas[rows], mask_areas(gt.masks)[columns]
        shared = np.minimum(shared, np.minimum(areas, gt_areas))
    unions = np.where(gt.is_crowd[columns], areas, areas + gt_areas - shared)
    return np.divide(shared, unions, out=np.zeros(len(rows)), where=unions > 0)


def _pair_ious(
    gt: Instances, detections: Instances, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """IoU of each pair, of masks or else of boxes; the pairs of an image stand together."""
    ious = np.zeros(len(rows))
    is_crowd = gt.is_crowd.astype(np.uint8)
    for pairs in _by_image(detections.images[rows]):
        first, second = rows[pairs].tolist(), columns[pairs].tolist()
        place = {row: place for place, row in enumerate(dict.fromkeys(first))}
        gt_place = {column: place for place, column in enumerate(dict.fromkeys(second))}
        table = mask_api.iou(
            detections.shapes([*place]), gt.shapes([*gt_place]), is_crowd[[*gt_place]]
        )
        ious[pairs] = table[[place[row] for row in first], [gt_place[c] for c in second]]
    return ious


def _boundary_ious(
    gt: Instances, detections: Instances, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """IoU of the boundaries of each pair; the pairs of an image stand together."""
    ious = np.zeros(len(rows))
    for pairs in _by_image(detections.images[rows]):
        first, second = rows[pairs].tolist(), columns[pairs].tolist()
        found, sought = detections.boundaries(first), gt.boundaries(second)
        ious[pairs] = [found[r].iou(sought[c]) for r, c in zip(first, second, strict=True)]
    return ious


def _by_image(images: np.ndarray) -> Iterator[slice]:
    """The stretches of equal values."""
    starts = np.flatnonzero(np.diff(images, prepend=-1)).tolist()
    return itertools.starmap(slice, itertools.pairwise([*starts, len(images)]))


def _steps(images: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The detections that have candidates, in steps of at most one for each image."""
    found = np.unique(rows)
    places = _places(images[found])
    order = np.argsort(places, kind="stable")
    yield from np.split(found[order], np.flatnonzero(np.diff(places[order])) + 1)


def _choose(
    chosen: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    gt: Instances,
    gt_ignored: np.ndarray,
    is_taken: np.ndarray,
    matches: Matches,
) -> None:
    """Matches one detection of each of some images, in place."""
    rows, columns, ious = pairs
    starts, ends = (np.searchsorted(rows, chosen, side) for side in ("left", "right"))
    shape = len(chosen), *is_taken.shape[1:]
    best = np.full(shape, -1)
    best_iou, best_ignored = np.zeros(shape), np.ones(shape, bool)
    for place in range((ends - starts).max(initial=0)):
        has = np.flatnonzero(ends - starts > place)
        pair = starts[has] + place
        column, iou = columns[pair], ious[pair][:, None, None]
        ignored = gt_ignored[column][:, None]
        is_free = ~is_taken[column] | gt.is_crowd[column][:, None, None]
        is_better = np.where(ignored == best_ignored[has], iou >= best_iou[has], best_ignored[has])
        takes = is_free & (iou >= IOU_THRESHOLDS[:, None]) & is_better
        best[has] = np.where(takes, column[:, None, None], best[has])
        best_iou[has] = np.where(takes, iou, best_iou[has])
        best_ignored[has] = np.where(takes, ignored, best_ignored[has])
    place, threshold, size = np.nonzero(best >= 0)
    column = best[place, threshold, size]
    is_taken[column, threshold, size] = True
    matches.is_found[chosen[place], threshold, size] = True
    matches.is_ignored[chosen[place], threshold, size] = gt_ignored[column, size]


def mask_areas(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Pixels of each mask, float64 `[n]`."""
    # In parts: of a list of more than 255, pycocotools' `area` fails with NumPy 2.
    parts = [mask_api.area(list(rles[start : start + 255])) for start in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0), *parts])


def mask_boxes(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """The tight box of each mask, xywh, float64 `[n, 4]`."""
    return mask_api.toBbox(list(rles)) if len(rles) else np.zeros((0, 4))
