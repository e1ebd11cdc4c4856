"""What a map of segment ids holds, counted by its horizontal runs.

A panoptic map has some thousand runs against some hundred thousand pixels, so everything here costs
little more than one comparison of neighbours.
"""

from collections.abc import Sequence

import numpy as np


def unique_ids(ids: np.ndarray) -> np.ndarray:
    """Returns the ids that occur in a map, sorted.

    Args:
        ids: int `[H, W]`.

    Returns:
        int `[n]`, void (0) included where it occurs.
    """
    _, _, run_ids = _runs(ids)
    return np.unique(run_ids)


def tight_boxes(
    ids: np.ndarray, segment_ids: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and areas of segments, from the map itself.

    Args:
        ids: int `[H, W]`.
        segment_ids: int `[n]`, unique.

    Returns:
        `(boxes, areas)`: float32 `[n, 4]`, yxyx, pixels, with y2 = last row + 1 and likewise x2;
        and int64 `[n]`, pixels. Both are 0 for an id that does not occur.
    """
    starts, lengths, run_ids = _runs(ids)
    segment_ids = np.asarray(segment_ids)
    segment = _positions(run_ids, segment_ids)
    listed = segment >= 0
    segment, starts, lengths = segment[listed], starts[listed], lengths[listed]
    row, column = np.divmod(starts, ids.shape[1])
    count = len(segment_ids)
    areas = np.zeros(count, np.int64)
    low = np.full((2, count), np.iinfo(np.int64).max)
    high = np.zeros((2, count), np.int64)
    np.add.at(areas, segment, lengths)
    np.minimum.at(low[0], segment, row)
    np.minimum.at(low[1], segment, column)
    np.maximum.at(high[0], segment, row + 1)
    np.maximum.at(high[1], segment, column + lengths)
    boxes = np.where(areas > 0, np.concatenate([low, high]), 0).T
    return boxes.astype(np.float32), areas


def _runs(ids):
    """Start (in the flattened map), length and id of each run of equal ids within a row."""
    flat = ids.ravel()
    breaks = flat[1:] != flat[:-1]
    breaks[ids.shape[1] - 1 :: ids.shape[1]] = True
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    return starts, np.diff(starts, append=flat.size), flat[starts]


def _positions(run_ids, segment_ids):
    """Position of each run's id in `segment_ids`; -1 where it is not in there."""
    if not len(segment_ids):
        return np.full(len(run_ids), -1)
    order = np.argsort(segment_ids)
    found = order[np.minimum(np.searchsorted(segment_ids, run_ids, sorter=order), len(order) - 1)]
    return np.where(segment_ids[found] == run_ids, found, -1)
