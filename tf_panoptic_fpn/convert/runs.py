"""Masks as run lengths, down the columns, background first: what is painted into a map."""

from typing import Any

import numpy as np

from tf_panoptic_fpn.masks.rle import encode_segmentation, runs_of


def segmentation_runs(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Rasterises a COCO segmentation.

    Args:
        segmentation: polygons or an RLE, see `encode_segmentation`.
        size: `(height, width)`.

    Returns:
        int64 `[r]`, run lengths.

    Raises:
        DataError: if the segmentation breaks a rule, such as less than 3 points in a polygon.
    """
    runs, _ = runs_of([encode_segmentation(segmentation, size)])
    return runs.astype(np.int64)


def mask_runs(mask: np.ndarray) -> np.ndarray:
    """Run lengths of a mask; the inverse of `runs_mask`.

    Args:
        mask: bool `[H, W]`.

    Returns:
        int64 `[r]`, run lengths.
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=flat.size)


def runs_mask(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask of run lengths.

    Args:
        runs: int64 `[r]`.
        size: `(height, width)`.

    Returns:
        bool `[H, W]`.
    """
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[1], size[0]).T


def runs_area(runs: np.ndarray) -> int:
    """Returns the number of foreground pixels of run lengths, an int."""
    return int(runs[1::2].sum())


def foreground(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the foreground runs.

    Args:
        runs: int64 `[r]`.

    Returns:
        `(starts, lengths)`: int64 `[n]` each, in pixels of the column-major image.
    """
    ends = np.cumsum(runs)
    lengths = runs[1::2]
    starts = ends[1::2] - lengths
    return starts[lengths > 0], lengths[lengths > 0]
