"""COCO's segmentations (polygons and run lengths), checked before any C code reads them."""

import math

import numpy as np
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.errors import DataError

_FARTHEST = 10  # image sides; rasterising takes memory in proportion to the length of the outline


def segmentation_runs(segmentation, size):
    """Rasterises a COCO segmentation.

    Args:
        segmentation: list of polygons `[x1, y1, x2, y2, ...]`, or a dict of `size` `[H, W]` and
            `counts`, a list of run lengths or COCO's text for it.
        size: `(height, width)`, ints.

    Returns:
        int64 `[r]`: lengths of the runs in column-major order, background first. They sum to
        height x width.

    Raises:
        DataError: if the segmentation breaks a rule, such as less than 3 points in a polygon.
    """
    if isinstance(segmentation, list):
        return polygon_runs(segmentation, size)
    if not isinstance(segmentation, dict):
        received = type(segmentation).__name__
        raise DataError(
            f"a segmentation must be a list of polygons or an RLE. Received: {received}"
        )
    counts = segmentation.get("counts")
    if segmentation.get("size") not in (list(size), tuple(size)):
        received = segmentation.get("size")
        raise DataError(f"the RLE's size must be {list(size)}, the image's. Received: {received}")
    if isinstance(counts, list):
        if not all(type(count) is int and 0 <= count <= math.prod(size) for count in counts):
            raise DataError("the RLE's counts must be ints from 0 to height x width")
        runs = np.array(counts, np.int64)
    elif isinstance(counts, (str, bytes)):
        runs = _decode_counts(counts)
    else:
        raise DataError(f"the RLE's counts must be a list or text. Received: {counts!r:.40}")
    if runs.sum() != math.prod(size):
        raise DataError(f"the RLE's counts must sum to {math.prod(size)}. Received: {runs.sum()}")
    return runs


def polygon_runs(polygons, size):
    """Rasterises the union of polygons by COCO's rule.

    Args:
        polygons: list of lists `[x1, y1, x2, y2, ...]`, pixels; what is outside the image is cut.
        size: `(height, width)`, ints.

    Returns:
        As `segmentation_runs`.

    Raises:
        DataError: if there is no polygon or one breaks a rule, see `check_polygon`.
    """
    if not polygons:
        raise DataError("the segmentation has no polygon")
    for polygon in polygons:
        check_polygon(polygon, size)
    rles = coco_mask.frPyObjects([[float(value) for value in p] for p in polygons], *size)
    return _decode_counts(coco_mask.merge(rles)["counts"])


def check_polygon(polygon, size):
    """Raises DataError unless a polygon has 3 points or more, of finite numbers near the image."""
    if not isinstance(polygon, list) or not all(type(value) in (int, float) for value in polygon):
        raise DataError(f"a polygon must be a list of numbers. Received: {polygon!r:.40}")
    if len(polygon) < 6 or len(polygon) % 2:
        raise DataError(
            f"a polygon must have 3 points or more, of 2 numbers each. "
            f"Received: {len(polygon)} numbers"
        )
    limit = _FARTHEST * max(size)
    for value in polygon:
        # Ints may be too large for `math.isfinite`; a comparison with NaN is False.
        if not -limit <= value <= limit:
            raise DataError(f"a polygon must be in or near the image. Received: a point at {value}")


def mask_runs(mask):
    """Run lengths of a mask; the inverse of `runs_mask`.

    Args:
        mask: bool `[H, W]`.

    Returns:
        As `segmentation_runs`.
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=flat.size)


def runs_mask(runs, size):
    """Mask of run lengths.

    Args:
        runs: int64 `[r]`, see `segmentation_runs`.
        size: `(height, width)`, ints.

    Returns:
        bool `[H, W]`.
    """
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[1], size[0]).T


def runs_area(runs):
    """Returns the number of foreground pixels of run lengths, an int."""
    return int(runs[1::2].sum())


def runs_box(runs, height):
    """Returns the tight box (x, y, width, height) of run lengths, ints; zeros without foreground.

    Args:
        runs: int64 `[r]`, see `segmentation_runs`.
        height: int, of the image.
    """
    starts, lengths = foreground(runs)
    if not len(starts):
        return (0, 0, 0, 0)
    first_column, first_row = np.divmod(starts, height)
    last_column, last_row = np.divmod(starts + lengths - 1, height)
    # A run into the next column has pixels in the lowest and in the highest row.
    wraps = bool((last_column > first_column).any())
    top = 0 if wraps else int(first_row.min())
    bottom = height if wraps else int(last_row.max()) + 1
    left, right = int(first_column.min()), int(last_column.max()) + 1
    return (left, top, right - left, bottom - top)


def foreground(runs):
    """Starts and lengths of the foreground runs.

    Args:
        runs: int64 `[r]`, see `segmentation_runs`.

    Returns:
        `(starts, lengths)`: int64 `[n]` each, in pixels of the column-major image.
    """
    ends = np.cumsum(runs)
    lengths = runs[1::2]
    starts = ends[1::2] - lengths
    return starts[lengths > 0], lengths[lengths > 0]


def _decode_counts(counts):
    """Run lengths from COCO's text: numbers of 5 bits a character, from the fourth on differences
    to the number two before."""
    try:
        text = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        text = b"\0"
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if digits.size and (digits.min() < 0 or digits.max() > 63 or digits[-1] > 31):
        raise DataError("the RLE's counts are not COCO's text")
    last = digits < 32
    number = np.cumsum(last) - last  # the number that each digit belongs to
    firsts = np.flatnonzero(np.diff(number, prepend=-1))
    shifts = 5 * (np.arange(digits.size) - firsts[number])
    if shifts.size and shifts.max() > 35:  # beyond any image
        raise DataError("the RLE's counts are not COCO's text")
    values = np.zeros(len(firsts), np.int64)
    np.add.at(values, number, (digits & 31) << shifts)
    ends = np.flatnonzero(last)
    values -= np.where(digits[ends] & 16, np.int64(1) << (shifts[ends] + 5), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.size and values.min() < 0:
        raise DataError("the RLE's counts must be 0 or above")
    return values
