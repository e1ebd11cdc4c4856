"""A contact sheet of training samples, as the model sees them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.visualize import draw_semantic, side_by_side
from tf_panoptic_fpn.visualize.colors import segment_colors, text_color
from tf_panoptic_fpn.visualize.fonts import draw_text, drawable_name, text_length, text_metrics
from tf_panoptic_fpn.visualize.labels import place_labels

SHORT_SIDE = 480  # pixels of a sample on the sheet
SHEET_WIDTH = 2700  # pixels, or one sample
TINT = 0.45
GAP = 16
FONT_SIZE = 14
MAX_LABELLED = 0.15  # share of a picture that labels may hide
MAX_SMALL_NAMES = 12  # names that are larger than their box
HATCH = 8  # pixels from one line to the next


def contact_sheet(batches: Iterable[Mapping[str, Any]], categories: CategoryTable) -> np.ndarray:
    """Draws each sample of training batches: instances to the left, semantic labels to the right.

    Instances have their box, their mask, pasted from the bitmap in the frame of the box, and their
    name; crowds are hatched. In the semantic labels, what is ignored stays clear.

    Args:
        batches: dicts of arrays, as `training_dataset` yields them.
        categories: of the data set.

    Returns:
        uint8 `[H, W, 3]`.
    """
    pictures: list[np.ndarray] = []
    for batch in batches:
        for i in range(len(batch[schema.IMAGES])):
            sample = {key: np.asarray(value[i]) for key, value in batch.items()}
            pictures.append(_draw_sample(sample, len(pictures) + 1, categories))
    return _sheet(pictures)


def draw_sample_instances(
    image: np.ndarray,
    sample: Mapping[str, np.ndarray],
    categories: CategoryTable,
    scale: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Draws the boxes and masks of a sample.

    Args:
        image: uint8 `[H, W, 3]`, the sample's image resized by `scale`.
        sample: arrays of one image, as in `schema`.
        categories: of the data set.
        scale: (y, x).

    Returns:
        uint8 `[H, W, 3]`.
    """
    real = np.flatnonzero(sample[schema.GT_CLASSES] >= 0)
    things = categories.things
    names = [drawable_name(things[c]) for c in sample[schema.GT_CLASSES][real]]
    colors = segment_colors(
        [{"category_id": things[c].id} for c in sample[schema.GT_CLASSES][real]], categories
    )
    boxes = sample[schema.GT_BOXES][real] * np.tile(scale, 2)
    crowds = sample[schema.GT_IS_CROWD][real]
    picture = image.copy()
    # The large ones first, so that they do not cover the others.
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")
    for i in order:
        _paste(picture, sample[schema.GT_MASKS][real[i]], boxes[i], colors[i], crowds[i])
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for i in order:
        y1, x1, y2, x2 = (round(float(value)) for value in boxes[i])
        outline = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
        draw.rectangle(outline, outline=(0, 0, 0), width=3)  # its inner pixel stays
        draw.rectangle(outline, outline=colors[i], width=1 if len(real) > 50 else 2)
    texts = [name + " (crowd)" * crowd for name, crowd in zip(names, crowds.tolist(), strict=True)]
    _draw_names(draw, canvas.size, [(boxes[i], texts[i], colors[i]) for i in order])
    return np.array(canvas)


def paste_bitmap(
    bitmap: np.ndarray, box: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Pastes a mask in the frame of its box.

    Args:
        bitmap: `[M, M]`, 0 or 1.
        box: float `[4]`, yxyx, pixels.
        size: `(height, width)` of the image.

    Returns:
        `(mask, (top, left))`: bool `[h, w]`, the pixels whose centre is in a set cell, and where
        in the image it begins.
    """
    places, cells = [], []
    for start, stop, extent, count in zip(box[:2], box[2:], size, bitmap.shape, strict=True):
        first, last = max(int(np.floor(start)), 0), min(int(np.ceil(stop)), extent)
        pixels = np.arange(first, max(last, first))
        cell = np.floor((pixels + 0.5 - start) / max(stop - start, 1e-6) * count).astype(int)
        inside = (cell >= 0) & (cell < count)
        places.append(int(pixels[inside][0]) if inside.any() else first)
        cells.append(cell[inside])
    return bitmap[np.ix_(*cells)] > 0, tuple(places)


def _draw_sample(sample, number, categories):
    height, width = sample[schema.IMAGE_SIZES]
    scale = SHORT_SIDE / min(height, width)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    pixels = sample[schema.IMAGES][:height, :width].clip(0, 255).astype(np.uint8)
    image = np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS))
    instances = draw_sample_instances(image, sample, categories, np.divide(size, (height, width)))
    labels = sample[schema.SEMANTIC][:height, :width].astype(np.int32)
    labels = np.array(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))
    semantic = draw_semantic(image, labels, categories)
    real = sample[schema.GT_CLASSES] >= 0
    num_crowds = int((real & sample[schema.GT_IS_CROWD]).sum())
    counts = f"instances {int(real.sum()) - num_crowds}"
    if num_crowds:
        counts += f", crowds {num_crowds}"
    title = "semantic labels" if (labels != schema.IGNORED).any() else "semantic labels: none"
    return side_by_side([instances, semantic], [f"{number}: {height}x{width}, {counts}", title])


def _paste(picture, bitmap, box, color, is_crowd):
    """Tints a mask in place; a crowd is hatched."""
    mask, (top, left) = paste_bitmap(bitmap, box, picture.shape[:2])
    bottom, right = top + mask.shape[0], left + mask.shape[1]
    part = picture[top:bottom, left:right]
    y, x = np.mgrid[top:bottom, left:right]
    stripe = (y + x) % HATCH < HATCH // 4
    amount = np.where(stripe, 0.9, 0.1) if is_crowd else np.full(mask.shape, TINT)
    amount = (amount * mask)[..., None]
    part[:] = (part * (1 - amount) + np.array(color) * amount + 0.5).astype(np.uint8)


def _draw_names(draw, canvas_size, entries):
    """Writes names above the left of their boxes, while they hide little of the picture."""
    line_height = sum(text_metrics(FONT_SIZE)) + 2
    width, height = canvas_size
    named, anchors, sizes = [], [], []
    num_small, hidden = 0, 0
    for box, text, color in entries:
        size = (line_height, round(text_length(text, FONT_SIZE)) + 6)
        num_small += size[0] * size[1] > np.prod(box[2:] - box[:2])
        hidden += size[0] * size[1]
        if num_small <= MAX_SMALL_NAMES and hidden <= MAX_LABELLED * height * width:
            named.append((box, text, color))
            anchors.append((box[0] - size[0] / 2, box[1] + size[1] / 2))
            sizes.append(size)
    places = place_labels(anchors, sizes, (height, width))
    for (box, text, color), place in zip(named, places, strict=True):
        if place is None:
            continue
        y1, x1, y2, x2 = place
        if y1 <= box[2] + 1 and y2 >= box[0] - 1 and x1 <= box[3] and x2 >= box[1]:  # at its box
            draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
            center = ((x1 + x2) / 2, (y1 + y2) / 2)
            draw_text(draw, center, text, text_color(color), FONT_SIZE)


def _sheet(pictures):
    """Pictures on white, in rows that are filled from left to right."""
    places, x, y, row_height = [], GAP, GAP, 0
    for picture in pictures:
        height, width, _ = picture.shape
        if x > GAP and x + width + GAP > SHEET_WIDTH:
            x, y, row_height = GAP, y + row_height + GAP, 0
        places.append((y, x))
        x, row_height = x + width + GAP, max(row_height, height)
    sheet_width = max(
        x + picture.shape[1] for (_, x), picture in zip(places, pictures, strict=True)
    )
    sheet = np.full((y + row_height + GAP, sheet_width + GAP, 3), 255, np.uint8)
    for (y, x), picture in zip(places, pictures, strict=True):
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet
