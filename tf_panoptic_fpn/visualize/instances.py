"""Pictures of instances: boxes, masks and scores."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.visualize.colors import RGB, segment_colors
from tf_panoptic_fpn.visualize.labels import Label, draw_labels, label_size, label_text
from tf_panoptic_fpn.visualize.layout import enlarge, enlarged_size
from tf_panoptic_fpn.visualize.tint import check_sizes, outlines, tinted


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    category_ids: np.ndarray | Sequence[int],
    categories: CategoryTable,
    scores: np.ndarray | Sequence[float] | None = None,
    masks: Iterable[np.ndarray] | None = None,
) -> np.ndarray:
    """Draws instances over their image; they may overlap.

    Each has its box, a label and, where masks are given, a tint and the outline of its mask. Where
    masks overlap, the tint is that of the first.

    Args:
        image: uint8 `[H, W, 3]`.
        boxes: float `[N, 4]`, yxyx, pixels of the image.
        category_ids: int `[N]`, dataset ids.
        categories: `CategoryTable`.
        scores: float `[N]`, or None for ground truth.
        masks: iterable of N masks `[H, W]`, non-zero inside; a generator keeps one in memory at a
            time. None: boxes alone.

    Returns:
        uint8 `[H', W', 3]`; H', W' are H, W, enlarged to a shorter side of 480 if below.

    Raises:
        DataError: if the numbers of boxes, categories, scores and masks differ, a mask has another
            size than the image, or a category is unknown.
    """
    image, boxes = np.asarray(image), np.asarray(boxes, np.float64).reshape(-1, 4)
    scores = [None] * len(boxes) if scores is None else [float(score) for score in scores]
    if not len(boxes) == len(category_ids) == len(scores):
        counts = f"{len(boxes)}, {len(category_ids)} and {len(scores)}"
        raise DataError(f"Boxes, categories and scores must be as many. Received: {counts}")
    colors = segment_colors([{"category_id": int(i)} for i in category_ids], categories)
    size = enlarged_size(image.shape[:2])
    boxes = boxes * (np.array(size * 2) / np.array(image.shape[:2] * 2))
    picture = enlarge(image, size)
    if masks is not None:
        picture = _draw_masks(picture, image, masks, colors)

    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    line_width = max(2, round(min(size) / 320))
    by_id, labels = categories.by_id, []
    for i in reversed(range(len(boxes))):  # the first lies on top
        y1, x1, y2, x2 = boxes[i]
        corner = max(x2 - 1, x1), max(y2 - 1, y1)
        draw.rectangle((x1, y1, *corner), outline=colors[i], width=line_width)
        text = label_text(by_id[int(category_ids[i])], scores[i])
        height, width = label_size(text, size)
        is_small = y2 - y1 < 3 * height  # the label would hide it
        anchor_y = y1 - height / 2 if is_small else y1 + height / 2
        labels.append(Label(text, colors[i], (anchor_y, x1 + width / 2)))
    draw_labels(canvas, labels[::-1])
    return np.array(canvas)


def _draw_masks(
    picture: np.ndarray, image: np.ndarray, masks: Iterable[np.ndarray], colors: Sequence[RGB]
) -> np.ndarray:
    owner = np.zeros(picture.shape[:2], np.int32)  # 1 + the instance that tints a pixel
    edges = np.zeros(owner.shape, np.int32)
    count = 0
    for count, mask in enumerate(masks, start=1):
        if count > len(colors):
            break
        mask = np.asarray(mask)
        check_sizes(image, mask)
        mask = enlarge(mask, picture.shape[:2]) != 0
        owner[mask & (owner == 0)] = count
        edges[outlines(mask) & (edges == 0)] = count
    if count != len(colors):
        more = "more" if count > len(colors) else count
        raise DataError(f"Masks must be as many as boxes, {len(colors)}. Received: {more}")
    picture = tinted(picture, owner, colors)
    return tinted(picture, edges, colors, share=1)
