"""Average precision of instances by the rules of Cityscapes, which match otherwise than COCO's."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes_labels import FIRST_INSTANCE_ID, LABELS, label_ids

IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_AREA = 100  # pixels; a smaller instance need not be found


class CityscapesAP:
    """Streaming AP, equal to the official `evalInstanceLevelSemanticLabeling`.

    A prediction matches an instance of its class if their IoU is above the threshold; of several
    that match one instance, the best score is right and the others are wrong. Groups and instances
    below 100 pixels are neither found nor missed. A prediction that matches nothing is wrong unless
    the part of it on void, groups and small instances exceeds the threshold.

    One case differs: a class whose predictions are all excused, with an instance to find, is 0; the
    official script fails on it.

    Reference: The Cityscapes Dataset, arXiv:1604.01685, section 5.
    """

    def __init__(self) -> None:
        shape = (len(_classes()), len(IOU_THRESHOLDS))
        self._right = _empty_lists(shape)  # scores, by class and threshold
        self._wrong = _empty_lists(shape)
        self._missed = np.zeros(shape, np.int64)

    def update(
        self,
        gt_instances: np.ndarray,
        predictions: Iterable[tuple[np.ndarray, int, float]],
        image: str = "",
    ) -> None:
        """Adds one image.

        Args:
            gt_instances: int `[H, W]`, as in `*_instanceIds.png`: 1000 label id + number, or the
                label id alone for stuff and groups.
            predictions: iterable of (mask `[H, W]`, not 0 inside the instance; label id; score).
                Those of a class that is not scored and those without a pixel are left out.
            image: name of the image, for error messages.

        Raises:
            DataError: if a mask has another size, an id is unknown, or a score is not a number.
        """
        gt_instances = np.asarray(gt_instances)
        is_unknown = (gt_instances < 0) | (gt_instances >= len(LABELS) * FIRST_INSTANCE_ID)
        is_unknown |= (gt_instances >= len(LABELS)) & (gt_instances < FIRST_INSTANCE_ID)
        if is_unknown.any():
            raise DataError(
                f"{image}: the ground truth holds instance ids of unknown labels. "
                f"Received: {np.unique(gt_instances[is_unknown])[:5].tolist()}"
            )
        areas = np.bincount(gt_instances.ravel())
        ids = np.flatnonzero(areas)
        areas = areas[ids]
        positions = np.zeros(len(LABELS) * FIRST_INSTANCE_ID, np.intp)
        positions[ids] = np.arange(len(ids))
        positions = positions[gt_instances]
        labels = np.where(ids < FIRST_INSTANCE_ID, ids, ids // FIRST_INSTANCE_ID)
        found: dict[int, list[tuple[float, np.ndarray]]] = {i: [] for i in _classes()}
        for number, (mask, label_id, score) in enumerate(predictions):
            mask = _check_prediction(mask, label_id, score, gt_instances.shape, image, number)
            if label_id in found:
                overlaps = np.bincount(positions[mask], minlength=len(ids))
                if overlaps.any():
                    found[label_id].append((float(score), overlaps))
        is_void = np.isin(ids, label_ids(lambda label: label.is_ignored))
        is_group = ids < FIRST_INSTANCE_ID
        for row, (label_id, detections) in enumerate(found.items()):
            self._match(row, labels == label_id, areas, is_void, is_group, detections)

    def _match(
        self,
        row: int,
        is_class: np.ndarray,
        areas: np.ndarray,
        is_void: np.ndarray,
        is_group: np.ndarray,
        detections: Sequence[tuple[float, np.ndarray]],
    ) -> None:
        """Adds one image's detections of one class; the arrays are by ground-truth region."""
        scores = np.array([score for score, _ in detections])
        overlaps = np.array([overlap for _, overlap in detections], np.int64)
        overlaps = overlaps.reshape(len(detections), len(areas)).T  # [regions, detections]
        detection_areas = overlaps.sum(axis=0)
        is_small = areas < MIN_AREA
        ignored = overlaps[is_void].sum(axis=0)
        for is_excuse in (is_group, is_small):  # a small group counts twice, as it does officially
            ignored += overlaps[is_class & is_excuse].sum(axis=0)
        intersection = overlaps[is_class]
        iou = intersection / (areas[is_class, None] + detection_areas - intersection)
        is_counted = ~(is_group | is_small)[is_class]
        for column, threshold in enumerate(IOU_THRESHOLDS):
            matches = iou > threshold
            for detected in matches[is_counted]:
                best_first = sorted(scores[detected].tolist(), reverse=True)
                self._right[row][column] += best_first[:1]
                self._wrong[row][column] += best_first[1:]
                self._missed[row, column] += not best_first
            is_wrong = ~matches.any(axis=0) & (ignored / detection_areas <= threshold)
            self._wrong[row][column] += scores[is_wrong].tolist()

    def merge(self, other: "CityscapesAP") -> None:
        """Adds the images of another `CityscapesAP`."""
        self._missed += other._missed
        for mine, theirs in ((self._right, other._right), (self._wrong, other._wrong)):
            for row, columns in enumerate(theirs):
                for column, scores in enumerate(columns):
                    mine[row][column] += scores

    def result(self) -> dict[str, Any]:
        """Returns the figures of all images so far, as fractions.

        Returns:
            dict: `AP` (mean over the IoU thresholds .5, .55, ... .95 and the classes), `AP50` and
            `per_class`, a dict name -> `AP`, `AP50`. What no ground truth bears on is None.
        """
        ap = np.array(
            [
                [
                    _average_precision(right, wrong, missed)
                    for right, wrong, missed in zip(*columns, strict=True)
                ]
                for columns in zip(self._right, self._wrong, self._missed, strict=True)
            ]
        )
        names = [LABELS[label_id].name for label_id in _classes()]
        occurs = ~np.isnan(ap[:, 0])
        # `nanmean` over classes that do not occur too adds in the order of the official script.
        return {
            "AP": float(np.nanmean(ap)) if occurs.any() else None,
            "AP50": float(np.nanmean(ap[:, 0])) if occurs.any() else None,
            "per_class": {
                name: {
                    "AP": float(values.mean()) if present else None,
                    "AP50": float(values[0]) if present else None,
                }
                for name, values, present in zip(names, ap, occurs, strict=True)
            },
        }


def _classes() -> list[int]:
    """Label ids of the classes that are scored."""
    return label_ids(lambda label: label.has_instances and not label.is_ignored)


def _empty_lists(shape: tuple[int, int]) -> list[list[list[float]]]:
    return [[[] for _ in range(shape[1])] for _ in range(shape[0])]


def _check_prediction(
    mask: np.ndarray, label_id: int, score: float, size: tuple[int, int], image: str, number: int
) -> np.ndarray:
    """Returns the mask as bool `[H, W]`."""
    mask = np.asarray(mask) != 0
    if mask.shape != size:
        raise DataError(
            f"{image}: instance {number}: mask and ground truth must have one size. "
            f"Received: {mask.shape} and {size}"
        )
    if not 0 <= label_id < len(LABELS):
        raise DataError(f"{image}: instance {number}: unknown label id. Received: {label_id}")
    if not math.isfinite(score):
        raise DataError(f"{image}: instance {number}: the score must be finite. Received: {score}")
    return mask


def _average_precision(right: Sequence[float], wrong: Sequence[float], missed: int) -> float:
    """Area below precision over recall, each step from the middle of its neighbours."""
    num_instances = len(right) + missed
    if num_instances == 0:
        return math.nan
    right, wrong = np.sort(right), np.sort(wrong)
    thresholds = np.unique(np.concatenate([right, wrong]))
    hits = len(right) - np.searchsorted(right, thresholds)
    false = len(wrong) - np.searchsorted(wrong, thresholds)
    precision = np.append(hits / (hits + false), 1.0)
    recall = np.append(hits / num_instances, 0.0)
    before = np.concatenate([recall[:1], recall[:-1]])
    after = np.append(recall[1:], 0.0)
    return float(precision @ (0.5 * before - 0.5 * after))
