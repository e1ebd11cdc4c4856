"""Pictures of where a prediction and the ground truth differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tf_panoptic_fpn.visualize.layout import enlarge, enlarged_size
from tf_panoptic_fpn.visualize.tint import OUTLINE, check_sizes, outlines, rows_of, tinted

CORRECT, FALSE_POSITIVE, MISSED, WRONG_CLASS = range(1, 5)
# Of Okabe and Ito's palette, which colour-blind people can tell apart.
DIFFERENCES = {
    "correct": (0, 158, 115),
    "false positive": (240, 228, 66),
    "missed": (0, 114, 178),
    "wrong class": (213, 94, 0),
}
CORRECT_TINT, ERROR_TINT = 0.35, 0.7  # errors stand out
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def difference_map(
    gt_ids: np.ndarray,
    gt_segments: Sequence[Mapping[str, Any]],
    pred_ids: np.ndarray,
    pred_segments: Sequence[Mapping[str, Any]],
) -> np.ndarray:
    """Says of each pixel how the prediction does, by the matching of panoptic quality.

    - 1, correct: its segments match (one category, IoU above 0.5 without void).
    - 2, false positive: it is void or crowd in the ground truth, and its predicted segment counts
      as a false positive; or the categories agree, but another prediction matches the segment.
    - 3, missed: nothing is predicted; or the categories agree, but no prediction matches.
    - 4, wrong class: the categories differ.
    - 0: void or crowd in the ground truth, otherwise.

    Args:
        gt_ids: int `[H, W]`, segment id of each pixel; ids that are not listed are void.
        gt_segments: list of dicts `id`, `category_id` and `iscrowd` (0 if left out).
        pred_ids: int `[H, W]`, as `gt_ids`.
        pred_segments: list of dicts `id`, `category_id`.

    Returns:
        uint8 `[H, W]`.

    Reference: Panoptic Segmentation, arXiv:1801.00868, section 4.
    """
    gt_rows = rows_of(np.asarray(gt_ids), [s["id"] for s in gt_segments])
    pred_rows = rows_of(np.asarray(pred_ids), [s["id"] for s in pred_segments])
    # Each pair of segments, row and column 0 being void, is one kind of pixel.
    shape = len(gt_segments) + 1, len(pred_segments) + 1
    pairs = gt_rows * shape[1] + pred_rows
    overlap = np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)

    is_scored = np.array([False] + [not s.get("iscrowd", 0) for s in gt_segments])[:, None]
    gt_category = np.array([-1] + [s["category_id"] for s in gt_segments])[:, None]
    pred_category = np.array([-2] + [s["category_id"] for s in pred_segments])
    same = gt_category == pred_category
    area = overlap.sum(axis=0)
    union = overlap.sum(axis=1)[:, None] + area - overlap - overlap[0]
    matches = same & is_scored & (overlap > 0.5 * union)
    ignored = overlap[0] + (overlap * (same & ~is_scored)).sum(axis=0)
    is_false = ~matches.any(axis=0) & (ignored <= 0.5 * area)
    is_false[0] = False

    kinds = np.where(is_scored, WRONG_CLASS, np.where(is_false, FALSE_POSITIVE, 0))
    is_found = matches.any(axis=1)[:, None]
    kinds = np.where(is_scored & same, np.where(is_found, FALSE_POSITIVE, MISSED), kinds)
    kinds[is_scored[:, 0], 0] = MISSED
    kinds[matches] = CORRECT
    return kinds.astype(np.uint8).ravel()[pairs]


def draw_difference(
    image: np.ndarray,
    gt_ids: np.ndarray,
    gt_segments: Sequence[Mapping[str, Any]],
    pred_ids: np.ndarray,
    pred_segments: Sequence[Mapping[str, Any]],
    legend: bool = True,
) -> np.ndarray:
    """Draws where a prediction is correct and where not, over the image in grey.

    Args:
        image: uint8 `[H, W, 3]`.
        gt_ids, gt_segments, pred_ids, pred_segments: as in `difference_map`.
        legend: whether the colours are explained in a strip below.

    Returns:
        uint8 `[H', W', 3]`; W' is W, and H' is H and the legend; H, W are enlarged to a shorter
        side of 480 if below. White lines are the outlines of the ground truth.

    Raises:
        DataError: if the sizes differ.
    """
    image, gt_ids, pred_ids = (np.asarray(array) for array in (image, gt_ids, pred_ids))
    check_sizes(image, gt_ids, pred_ids)
    size = enlarged_size(image.shape[:2])
    kinds = enlarge(difference_map(gt_ids, gt_segments, pred_ids, pred_segments), size)
    grey = np.repeat((enlarge(image, size) @ GREY)[..., None], 3, axis=-1)
    colors = list(DIFFERENCES.values())
    picture = tinted(grey, np.where(kinds == CORRECT, kinds, 0), colors, CORRECT_TINT)
    picture = tinted(picture, np.where(kinds == CORRECT, 0, kinds), colors, ERROR_TINT)
    picture[outlines(enlarge(gt_ids, size))] = OUTLINE
    return np.concatenate([picture, _legend(size[1])]) if legend else picture


def _legend(width: int) -> np.ndarray:
    """A white strip `[h, width, 3]` that names the colours, in as many lines as it takes."""
    font, line = ImageFont.load_default(15), 26
    places, x, y = [], 8, 0
    for name in DIFFERENCES:
        step = 22 + round(font.getlength(name)) + 18
        if x > 8 and x + step > width:
            x, y = 8, y + line
        places.append((x, y))
        x += step
    strip = Image.new("RGB", (width, y + line), (255, 255, 255))
    draw = ImageDraw.Draw(strip)
    for (name, color), (x, y) in zip(DIFFERENCES.items(), places, strict=True):
        draw.rectangle((x, y + 6, x + 14, y + 20), fill=color)
        draw.text((x + 22, y + line / 2), name, fill=(0, 0, 0), font=font, anchor="lm")
    return np.array(strip)
