"""Labels that do not collide."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tf_panoptic_fpn.categories import Category
from tf_panoptic_fpn.visualize.colors import RGB, text_color
from tf_panoptic_fpn.visualize.fonts import draw_text, drawable_name, text_length, text_metrics

LINE = (255, 255, 255)  # from a label that was moved away to what it names
MAX_LABELLED = 0.2  # share of the picture that labels may hide
ANCHOR_CELL = 4  # pixels; anchors of labels are sought on a grid this coarse


@dataclasses.dataclass(frozen=True)
class Label:
    """A text, the colour behind it and the point (y, x) in pixels that it belongs to."""

    text: str
    color: RGB
    anchor: tuple[float, float]


def label_text(category: Category, score: float | None = None, is_crowd: bool = False) -> str:
    """The text of a label: `cat 87%`, `person (crowd)`."""
    text = drawable_name(category)
    if is_crowd:
        text += " (crowd)"
    if score is not None:
        text += f" {100 * score:.0f}%"
    return text


def label_size(text: str, image_size: tuple[int, int]) -> tuple[int, int]:
    """Size (height, width) in pixels of the label of a text in a picture of this size."""
    size, padding = _font_size(image_size)
    return sum(text_metrics(size)) + padding, round(text_length(text, size)) + 2 * padding


def draw_labels(canvas: Image.Image, labels: Sequence[Label]) -> None:
    """Draws labels near their anchors, without any overlap; earlier labels have the choice.

    A label that finds no room is left out, and so are the last ones once labels hide a fifth of the
    picture.

    Args:
        canvas: RGB `PIL.Image.Image`, drawn upon.
        labels: list of `Label`.
    """
    image_size = canvas.height, canvas.width
    font_size, _ = _font_size(image_size)
    draw = ImageDraw.Draw(canvas)
    sizes = [label_size(label.text, image_size) for label in labels]
    hidden = np.cumsum([height * width for height, width in sizes])
    count = int(np.sum(hidden <= MAX_LABELLED * image_size[0] * image_size[1]))
    boxes = place_labels([label.anchor for label in labels[:count]], sizes[:count], image_size)
    placed = [(labels[i], box) for i, box in enumerate(boxes) if box is not None]
    for label, (y1, x1, y2, x2) in placed:  # all lines first, so that none crosses a label
        y, x = label.anchor
        if not (y1 <= y < y2 and x1 <= x < x2):
            nearest = int(np.clip(x, x1, x2 - 1)), int(np.clip(y, y1, y2 - 1))
            draw.line([(x, y), nearest], fill=LINE, width=1)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=label.color, outline=LINE)
    for label, (y1, x1, y2, x2) in placed:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=label.color)
        center = (x1 + x2) / 2, (y1 + y2) / 2
        draw_text(draw, center, label.text, text_color(label.color), font_size)


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> list[tuple[int, int, int, int] | None]:
    """Places labels near their anchors, inside the image, without any overlap.

    Earlier labels have the choice. A label is centred on its anchor if there is room, else moved by
    as little as possible, at most three of its own heights up or down and one width sideways.

    Args:
        anchors: list of N (y, x), pixels.
        sizes: list of N (height, width), pixels.
        image_size: (H, W).

    Returns:
        list of N boxes (y1, x1, y2, x2), or None where there is no room.
    """
    placed = np.zeros((0, 4))
    result: list[tuple[int, int, int, int] | None] = []
    steps_y, steps_x = np.linspace(-3, 3, 25), np.linspace(-1, 1, 17)
    for (anchor_y, anchor_x), (height, width) in zip(anchors, sizes, strict=True):
        shift_y, shift_x = np.meshgrid(steps_y * height, steps_x * width, indexing="ij")
        order = np.argsort(np.hypot(shift_y, shift_x).ravel(), kind="stable")
        y1 = anchor_y + shift_y.ravel()[order] - height / 2
        x1 = anchor_x + shift_x.ravel()[order] - width / 2
        y1 = np.round(np.clip(y1, 0, max(image_size[0] - height, 0)))
        x1 = np.round(np.clip(x1, 0, max(image_size[1] - width, 0)))
        boxes = np.stack([y1, x1, y1 + height, x1 + width], axis=-1)
        is_inside = (boxes[:, 2] <= image_size[0]) & (boxes[:, 3] <= image_size[1])
        collides = np.all(
            (boxes[:, None, :2] < placed[None, :, 2:]) & (placed[None, :, :2] < boxes[:, None, 2:]),
            axis=-1,
        ).any(axis=-1)
        free = np.flatnonzero(is_inside & ~collides)
        if len(free) == 0:
            result.append(None)
            continue
        placed = np.concatenate([placed, boxes[free[:1]]])
        top, left, bottom, right = boxes[free[0]].tolist()
        result.append((int(top), int(left), int(bottom), int(right)))
    return result


def deepest_points(rows: np.ndarray, count: int) -> list[tuple[int, int] | None]:
    """Finds the point of each segment that is deepest inside it, on a coarse grid.

    Args:
        rows: int `[H, W]`, 1..count for the segments, 0 elsewhere.
        count: int.

    Returns:
        list of `count` (y, x), or None for a segment without any pixel.
    """
    grid = np.pad(rows[ANCHOR_CELL // 2 :: ANCHOR_CELL, ANCHOR_CELL // 2 :: ANCHOR_CELL], 1)
    depth = np.zeros(grid.shape, np.int32)
    inside = grid > 0
    while inside.any():
        depth += inside
        shrunk = np.zeros_like(inside)
        core = inside[1:-1, 1:-1].copy()
        for window in (np.s_[:-2, 1:-1], np.s_[2:, 1:-1], np.s_[1:-1, :-2], np.s_[1:-1, 2:]):
            core &= inside[window] & (grid[window] == grid[1:-1, 1:-1])
        shrunk[1:-1, 1:-1] = core
        inside = shrunk
    points: list[tuple[int, int] | None] = []
    for row in range(1, count + 1):
        ys, xs = np.nonzero(grid == row)
        if len(ys):
            deepest = depth[ys, xs] == depth[ys, xs].max()
            ys, xs = ys[deepest], xs[deepest]
            best = np.argmin(np.hypot(ys - ys.mean(), xs - xs.mean()))
            y, x = (np.array([ys[best], xs[best]]) - 1) * ANCHOR_CELL + ANCHOR_CELL // 2
            points.append((int(y), int(x)))
        else:  # it slipped through the grid
            ys, xs = np.nonzero(rows == row)
            points.append((int(ys[0]), int(xs[0])) if len(ys) else None)
    return points


def _font_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """The font size and the padding in pixels for a picture of this size."""
    font_size = max(13, round(min(image_size) / 40))
    return font_size, max(2, font_size // 5)
