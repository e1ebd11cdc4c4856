"""Precision over recall of the detections of one class, as pycocotools computes it."""

import numpy as np

from tf_panoptic_fpn.metrics.coco_matching import MAX_DETECTIONS, Matches

RECALLS = np.linspace(0, 1, 101)
BEST = (1, 10, MAX_DETECTIONS)  # numbers of detections of an image for which recall is given


def precision_recall(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Precision at each of `RECALLS`, and recall.

    Args:
        matches: of D detections, at T IoU thresholds and for A ranges of areas.

    Returns:
        `(precision, recall)`: float64 `[T, 101, A]`, the best precision at this recall or a higher
        one, of `MAX_DETECTIONS` an image; and float64 `[T, A, len(BEST)]`. Both are -1 for a range
        without ground truth.
    """
    order = np.argsort(-matches.scores, kind="stable")
    ranks = matches.ranks[order]
    counts, is_found = (
        np.ascontiguousarray(values[order].transpose(1, 2, 0))
        for values in (~matches.is_ignored, matches.is_found)
    )
    is_right = counts & is_found  # [T, A, D]
    num_thresholds, num_ranges = is_right.shape[:2]
    precision = np.full((num_thresholds, len(RECALLS), num_ranges), -1.0)
    recall = np.full((num_thresholds, num_ranges, len(BEST)), -1.0)
    for size in np.flatnonzero(matches.num_gt).tolist():
        num_gt = matches.num_gt[size]
        for column, best in enumerate(BEST):
            recall[:, size, column] = is_right[:, size, ranks < best].sum(axis=1) / num_gt
        for threshold in range(num_thresholds):
            precision[threshold, :, size] = _precision_at_recalls(
                is_right[threshold, size], counts[threshold, size], num_gt
            )
    return precision, recall


def _precision_at_recalls(is_right: np.ndarray, counts: np.ndarray, num_gt: int) -> np.ndarray:
    """Of bool `[D]`, the best score first.

    Precision and recall rise where a detection is right, so that only these are looked at.
    """
    num_right = np.arange(1, np.count_nonzero(is_right) + 1)
    num_seen = np.cumsum(counts)[is_right]
    precision = num_right / (num_seen + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # Recalls that are not reached have precision 0.
    return np.append(best, 0.0)[np.searchsorted(num_right / num_gt, RECALLS)]
