"""Connected parts of the segments of a map."""

from collections.abc import Sequence

import numpy as np


def count_parts(ids: np.ndarray, segment_ids: Sequence[int]) -> list[int]:
    """Counts the 8-connected parts of segments.

    Args:
        ids: int `[H, W]`.
        segment_ids: of the segments.

    Returns:
        The number of each.
    """
    _, ids_of_parts = label_parts(ids)
    found, counts = np.unique(ids_of_parts, return_counts=True)
    by_id = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return [by_id.get(segment_id, 0) for segment_id in segment_ids]


def label_parts(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the 8-connected parts of all segments, void (0) included.

    Args:
        ids: int `[H, W]`.

    Returns:
        `(parts, ids_of_parts)`: int64 `[H, W]`, the part of each pixel, 0..n-1 by their first
        pixels; and `[n]`, the segment of each part, in the dtype of `ids`.
    """
    starts_run = np.ones(ids.shape, bool)
    starts_run[:, 1:] = ids[:, 1:] != ids[:, :-1]
    run = np.cumsum(starts_run).reshape(ids.shape) - 1  # the horizontal run of each pixel
    run_ids = ids[starts_run]
    # Two runs below each other touch in a row of pixels; the first of them is enough.
    below = (ids[:-1] == ids[1:]) & (starts_run[:-1] | starts_run[1:])
    a, b, c, d = ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]
    falling = (a == d) & (a != b) & (a != c)
    rising = (b == c) & (b != a) & (b != d)
    pairs = [
        (run[:-1][below], run[1:][below]),
        (run[:-1, :-1][falling], run[1:, 1:][falling]),
        (run[:-1, 1:][rising], run[1:, :-1][rising]),
    ]
    first, second = np.concatenate(pairs, axis=1)
    first_runs, part_of_run = np.unique(_roots(len(run_ids), first, second), return_inverse=True)
    return part_of_run[run], run_ids[first_runs]


def _roots(count, first, second):
    """The smallest node that each node of a graph is connected to, by its edges."""
    roots = np.arange(count)
    while True:
        low = np.minimum(roots[first], roots[second])
        before = roots.copy()
        # The roots of both ends, and the ends themselves, take the smaller root.
        for end in (first, second):
            np.minimum.at(roots, before[end], low)
            np.minimum.at(roots, end, low)
        while True:
            jumped = roots[roots]
            if np.array_equal(jumped, roots):
                break
            roots = jumped
        if np.array_equal(roots, before):
            return roots
