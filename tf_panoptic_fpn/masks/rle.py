"""Masks as run lengths, down the columns, background first; and COCO's code for them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.errors import DataError

Rle = dict[str, Any]  # COCO's: {"size": [H, W], "counts": bytes}

_LONGEST = np.iinfo(np.uint16).max
_MORE = 48 + 32  # characters from here on are not the last of their number


def runs_of(rles: Sequence[Rle]) -> tuple[np.ndarray, np.ndarray]:
    """Unpacks the compressed counts of COCO RLEs.

    Returns:
        `(runs, num_runs)`: uint16 `[r]`, the run lengths of all masks one after the other, down the
        columns, background first; a run above 65535 is followed by a run of 0 and what is left of
        it. And int64 `[n]`, the number of runs of each mask.

    Reference: `rleFrString` of pycocotools: 5 bits a character from the lowest, bit 6 where more
    follow, the last with a sign; from the fourth on, a count is the difference from the last but
    one.
    """
    if not any(rle["counts"] for rle in rles):
        return np.zeros(0, np.uint16), np.zeros(len(rles), np.int64)
    counts, num_counts = _unpacked([rle["counts"] for rle in rles])
    return _split_long(counts, np.repeat(np.arange(len(rles)), num_counts), len(rles))


def run_lengths(rles: Sequence[Rle]) -> list[np.ndarray]:
    """Unpacks the compressed counts of COCO RLEs, text or bytes: int64 `[c]` of each."""
    texts = [rle["counts"] for rle in rles]
    texts = [text.encode() if isinstance(text, str) else text for text in texts]
    counts, num_counts = _unpacked(texts)
    return np.split(counts, np.cumsum(num_counts)[:-1])


def pixels_of_texts(texts: Sequence[bytes]) -> np.ndarray | None:
    """Sums up the counts of COCO RLEs, background included: the pixels of their images.

    Returns:
        int64 `[n]`; None if one is not COCO's text or has a count below 0.
    """
    if not texts:
        return np.zeros(0, np.int64)
    if not _are_texts(texts):
        return None
    counts, num_counts = _unpacked(texts)
    if counts.min() < 0:
        return None
    return np.add.reduceat(counts, np.cumsum(num_counts) - num_counts)


def _are_texts(texts):
    """Whether all are numbers as COCO writes them, of at most 7 characters."""
    text = np.frombuffer(b"".join(texts), np.uint8)
    if not all(texts) or text.min() < 48 or text.max() > 111:
        return False
    is_last = text < _MORE
    longest = np.diff(np.flatnonzero(is_last), prepend=-1).max(initial=0)
    return is_last[np.cumsum([len(text) for text in texts]) - 1].all() and longest <= 7


def _unpacked(texts):
    """The counts of all masks, int64 [c], and the number of counts of each, int64 [n]."""
    text = np.frombuffer(b"".join(texts), np.uint8)
    ends = np.flatnonzero(text < _MORE)
    lengths = np.diff(ends, prepend=-1)
    digits = (text - 48) & 0x1F
    counts = (digits[ends] ^ 0x10).astype(np.int64) - 0x10  # the sign of the last, extended
    for place in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > place)
        counts[longer] = counts[longer] << 5 | digits[ends[longer] - place]
    text_ends = np.cumsum([len(text) for text in texts])
    starts = np.searchsorted(ends, np.append(0, text_ends))
    _undo_differences(counts, starts[:-1], np.diff(starts))
    return counts, np.diff(starts)


def _undo_differences(counts, starts, num_counts):
    """Sums up, in place, the counts of each mask at odd positions, and at even ones from 2 on."""
    first = counts[starts[num_counts > 0]]
    sums = np.zeros(len(counts) + 2, np.int64)  # [i + 2]: of counts i, i - 2, i - 4, ...
    for parity in (0, 1):
        np.cumsum(counts[parity::2], out=sums[parity + 2 :: 2])
    before = [np.repeat(sums[np.minimum(starts + p, len(counts) + 1)], num_counts) for p in (1, 2)]
    position = np.arange(len(counts)) - np.repeat(starts, num_counts)
    np.subtract(sums[2:], np.where(position % 2, *before), out=counts)
    counts[starts[num_counts > 0]] = first


def _split_long(counts, mask, num_masks):
    pieces = 1 + 2 * (np.maximum(counts - 1, 0) // _LONGEST)
    runs = np.zeros(pieces.sum(), np.uint16)
    ends = np.cumsum(pieces)
    runs[ends - 1] = counts - pieces // 2 * _LONGEST
    for long in np.flatnonzero(pieces > 1):
        runs[ends[long] - pieces[long] : ends[long] - 1 : 2] = _LONGEST
    return runs, np.bincount(mask, weights=pieces, minlength=num_masks).astype(np.int64)


class MaskError(DataError):
    """A segmentation breaks a rule, which pycocotools might not survive."""

    def __init__(self, text: str, rule: str = "segmentation") -> None:
        super().__init__(text)
        self.rule = rule


def encode_segmentation(
    segmentation: Any,
    size: Sequence[int],
    on_bad_part: Callable[[str], Any] | None = None,
) -> Rle:
    """Makes a COCO RLE of an annotation's `segmentation`, by pycocotools' rules.

    Args:
        segmentation: list of polygons `[x1, y1, x2, y2, ...]`, or a dict of `size` `[H, W]` and
            `counts`, a list of ints or COCO's text for it.
        size: (height, width) of the image.
        on_bad_part: called with a line of text for each polygon that is left out, others being
            good.

    Raises:
        MaskError: if the segmentation, or each of its polygons, breaks a rule.
    """
    size = list(size)
    if isinstance(segmentation, list):
        polygons = good_polygons(segmentation, size, on_bad_part)
        parts = coco_mask.frPyObjects(polygons, *size)
        return parts[0] if len(parts) == 1 else coco_mask.merge(parts)
    if not isinstance(segmentation, dict):
        raise MaskError(
            f"`segmentation` must be polygons or an RLE. Received: {type(segmentation).__name__}"
        )
    if segmentation.get("size") != size:
        received = segmentation.get("size")
        raise MaskError(f"the RLE's size must be {size}, the image's. Received: {received!r:.40}")
    counts = segmentation.get("counts")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts):
            raise MaskError("the RLE's counts must be ints of 0 or above")
        _check_sum(sum(counts), size)
        return coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
    if not isinstance(counts, (str, bytes)) or not counts.isascii():
        raise MaskError(f"the RLE's counts must be a list or text. Received: {counts!r:.40}")
    rle = {"size": size, "counts": counts.encode() if isinstance(counts, str) else counts}
    _check_text(rle)
    return rle


def mask_area(rle: Rle) -> int:
    """Returns the number of pixels of a COCO RLE."""
    return int(coco_mask.area(rle))


def mask_box(rle: Rle) -> tuple[float, float, float, float]:
    """Returns the tight box of a COCO RLE, floats x, y, width, height; zeros without a pixel."""
    return tuple(coco_mask.toBbox(rle).tolist())


def good_polygons(
    polygons: list[Any], size: Sequence[int], on_bad_part: Callable[[str], Any] | None = None
) -> list[list[float]]:
    """Returns those of a list of polygons that can be rasterised; see `encode_segmentation`."""
    if not polygons:
        raise MaskError("`segmentation` is empty")
    good, errors = [], []
    for polygon in polygons:
        try:
            _check_polygon(polygon, size)
            good.append(polygon)
        except MaskError as error:
            errors.append(error)
    if not good:
        raise errors[0]
    if on_bad_part is not None:
        for reason in errors:
            on_bad_part(f"a part is left out: {reason}")
    return good


def _check_polygon(polygon, size):
    if not isinstance(polygon, list) or not {int, float}.issuperset(map(type, polygon)):
        raise MaskError(f"a polygon must be a list of numbers. Received: {polygon!r:.40}")
    if len(polygon) < 6 or len(polygon) % 2:
        raise MaskError(
            f"a polygon must have 3 or more points of 2 numbers. Received: {len(polygon)} numbers",
            "polygon_points" if len(polygon) < 6 else "segmentation",
        )
    if not _sum_is_finite(polygon):
        raise MaskError("a polygon must have finite numbers")
    for side, values in zip(size[::-1], (polygon[::2], polygon[1::2]), strict=True):
        low, high = min(values), max(values)
        if low > side or high < 0:
            raise MaskError("the polygon is outside the image")
        # Rasterising takes memory by the length of the outline.
        if low < -side or high > 2 * side:
            raise MaskError(
                f"a polygon must not go further beyond the image than the image is large. "
                f"Received: {low}..{high}, beside 0..{side}"
            )


def _sum_is_finite(numbers):
    try:
        return math.isfinite(sum(numbers))
    except OverflowError:  # an int beyond the floats
        return False


def _check_sum(total, size):
    if total != math.prod(size):
        raise MaskError(
            f"the RLE's counts must sum to {math.prod(size)}, the image's pixels. Received: {total}"
        )


def _check_text(rle):
    if not _are_texts([rle["counts"]]):
        raise MaskError("the RLE's counts are not COCO's text")
    counts, _ = _unpacked([rle["counts"]])
    if counts.min() < 0:
        raise MaskError("the RLE's counts must be 0 or above")
    _check_sum(int(counts.sum()), rle["size"])
