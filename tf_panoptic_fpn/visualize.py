"""Pictures of panoptic maps for people: tints, outlines and labels over the image."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tf_panoptic_fpn.errors import DataError

MIN_SHORT_SIDE = 480  # smaller images are enlarged, or labels would hide them
TINT = 0.5
OUTLINE = (255, 255, 255)
GOLDEN_RATIO = 0.6180339887  # multiples of irrational numbers, modulo 1, keep far apart
SQRT_2 = 1.4142135624
FIRST_HUE = 0.58
MAX_LABELLED = 0.2  # share of the picture that labels may hide
ANCHOR_CELL = 4  # pixels; anchors of labels are sought on a grid this coarse


def draw_panoptic(image, panoptic_map, segments, categories):
    """Draws the segments of a panoptic map over its image.

    Each segment is tinted with the colour of its category (things in a shade of their own), has a
    white outline and a label: the name, and the score where it has one. A label that finds no room
    near its segment is left out, and so are those of the smallest segments once labels hide a fifth
    of the picture.

    Args:
        image: uint8 `[H, W, 3]`.
        panoptic_map: int `[H, W]`, segment id of each pixel; ids that are not listed stay clear.
        segments: list of dicts `id`, `category_id` and, if known, `score` and `iscrowd`.
        categories: `CategoryTable`.

    Returns:
        uint8 `[H', W', 3]`; H', W' are H, W, enlarged to a shorter side of 480 if below.

    Raises:
        DataError: if the sizes differ or a category is unknown.
    """
    image, panoptic_map = np.asarray(image), np.asarray(panoptic_map)
    if image.shape[:2] != panoptic_map.shape:
        raise DataError(
            "Image and panoptic map must have one size. "
            f"Received: {image.shape[:2]} and {panoptic_map.shape}"
        )
    colors = segment_colors(segments, categories)
    ids = np.array([0] + [segment["id"] for segment in segments], np.int64)
    rows = _rows_of(panoptic_map, ids)
    image, rows = _enlarge(image, rows)

    palette = np.array([(0, 0, 0), *colors], np.float32)
    tint = np.where(rows > 0, TINT, 0.0)[..., None].astype(np.float32)
    picture = (image * (1 - tint) + palette[rows] * tint + 0.5).astype(np.uint8)
    picture[_outlines(rows)] = OUTLINE

    canvas = Image.fromarray(picture)
    _draw_labels(canvas, rows, segments, colors, categories)
    return np.array(canvas)


def side_by_side(images, titles):
    """Joins pictures into one row, each under its title.

    Args:
        images: list of uint8 `[H, W, 3]`; shorter ones are filled up at the bottom.
        titles: list of as many strings.

    Returns:
        uint8 `[H', W', 3]`.
    """
    gap, font = 8, ImageFont.load_default(18)
    bar = 30
    height = bar + max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    x = 0
    for image, title in zip(images, titles, strict=True):
        canvas.paste(Image.fromarray(image), (x, bar))
        draw.text((x + 4, bar / 2), title, fill=(0, 0, 0), font=font, anchor="lm")
        x += image.shape[1] + gap
    return np.array(canvas)


def segment_colors(segments, categories):
    """Chooses a colour for each segment.

    Stuff has the colour of its category: the one that the data set gives, else a stable one by the
    position of the category. Things of one category take varied shades of it, by order in the list.

    Args:
        segments: list of dicts with `category_id`.
        categories: `CategoryTable`.

    Returns:
        list of (red, green, blue), 0-255.

    Raises:
        DataError: if a category is unknown.
    """
    by_id = categories.by_id
    position = {category.id: index for index, category in enumerate(categories.categories)}
    seen, colors = {}, []
    for segment in segments:
        category = by_id.get(segment["category_id"])
        if category is None:
            raise DataError(f"Unknown category. Received: {segment['category_id']}")
        index = position[category.id]
        hue, value = FIRST_HUE + index * GOLDEN_RATIO, 0.95 if index % 2 else 0.75
        color = category.color or _hsv(hue, 0.95 if category.is_thing else 0.55, value)
        if category.is_thing:
            count = seen.get(category.id, 0)
            seen[category.id] = count + 1
            color = _shade(color, count)
        colors.append(tuple(color))
    return colors


def place_labels(anchors, sizes, image_size):
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
    placed, result = np.zeros((0, 4)), []
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
        box = boxes[free[0]]
        placed = np.concatenate([placed, box[None]])
        result.append(tuple(int(value) for value in box))
    return result


def text_color(background):
    """Returns black or white, whichever stands out more; the contrast is at least 4.5 to 1."""
    luminance = relative_luminance(background)
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def relative_luminance(color):
    """Relative luminance in [0, 1] of a colour 0-255. Reference: WCAG 2.1."""
    channels = np.asarray(color, np.float64) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _rows_of(panoptic_map, ids):
    """Maps each pixel to the position of its id in `ids`; 0 where it is not among them."""
    order = np.argsort(ids)
    nearest = np.searchsorted(ids[order], panoptic_map).clip(max=len(ids) - 1)
    rows = order[nearest]
    return np.where(ids[rows] == panoptic_map, rows, 0)


def _enlarge(image, rows):
    height, width = rows.shape
    scale = MIN_SHORT_SIDE / min(height, width)
    if scale <= 1:
        return image, rows
    size = round(width * scale), round(height * scale)
    image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    rows = np.array(Image.fromarray(rows.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    return image, rows


def _outlines(rows):
    """Returns bool `[H, W]`: the pixels whose right or lower neighbour is of another segment."""
    edges = np.zeros(rows.shape, bool)
    edges[:, :-1] |= rows[:, 1:] != rows[:, :-1]
    edges[:-1] |= rows[1:] != rows[:-1]
    return edges


def _label_anchors(rows, count):
    """Finds the point of each segment that is deepest inside it, on a coarse grid.

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
    anchors = []
    for row in range(1, count + 1):
        ys, xs = np.nonzero(grid == row)
        if len(ys):
            deepest = depth[ys, xs] == depth[ys, xs].max()
            ys, xs = ys[deepest], xs[deepest]
            best = np.argmin(np.hypot(ys - ys.mean(), xs - xs.mean()))
            y, x = (np.array([ys[best], xs[best]]) - 1) * ANCHOR_CELL + ANCHOR_CELL // 2
        else:  # it slipped through the grid
            ys, xs = np.nonzero(rows == row)
            y, x = (ys[0], xs[0]) if len(ys) else (None, None)
        anchors.append(None if y is None else (int(y), int(x)))
    return anchors


def _draw_labels(canvas, rows, segments, colors, categories):
    height, width = rows.shape
    font_size = max(13, round(min(height, width) / 40))
    font, padding = ImageFont.load_default(font_size), max(2, font_size // 5)
    by_id, draw = categories.by_id, ImageDraw.Draw(canvas)
    anchors = _label_anchors(rows, len(segments))
    areas = np.bincount(rows.ravel(), minlength=len(segments) + 1)[1:]
    order = [i for i in np.argsort(-areas, kind="stable") if anchors[i] is not None]

    texts = [_label(segments[i], by_id[segments[i]["category_id"]]) for i in order]
    ascent, descent = font.getmetrics()
    text_height = ascent + descent
    sizes = [(text_height + padding, round(font.getlength(text)) + 2 * padding) for text in texts]
    hidden = np.cumsum([label_height * label_width for label_height, label_width in sizes])
    count = int(np.sum(hidden <= MAX_LABELLED * height * width))
    order, texts = order[:count], texts[:count]
    boxes = place_labels([anchors[i] for i in order], sizes[:count], (height, width))
    drawn = [entry for entry in zip(order, texts, boxes, strict=True) if entry[2] is not None]
    for i, _, (y1, x1, y2, x2) in drawn:  # all lines first, so that none crosses a label
        y, x = anchors[i]
        if not (y1 <= y < y2 and x1 <= x < x2):
            nearest = int(np.clip(x, x1, x2 - 1)), int(np.clip(y, y1, y2 - 1))
            draw.line([(x, y), nearest], fill=OUTLINE, width=1)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colors[i], outline=OUTLINE)
    for i, text, (y1, x1, y2, x2) in drawn:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colors[i])
        center = (x1 + x2) / 2, (y1 + y2) / 2
        draw.text(center, text, fill=text_color(colors[i]), font=font, anchor="mm")


def _label(segment, category):
    text = category.name
    if segment.get("iscrowd"):
        text += " (crowd)"
    if category.is_thing and segment.get("score") is not None:
        text += f" {100 * segment['score']:.0f}%"
    return text


def _hsv(hue, saturation, value):
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _shade(color, count):
    """Returns the shade of the instance after `count` others; the first has the colour itself."""
    if count == 0:
        return color
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    step = count * GOLDEN_RATIO % 1
    hue += 0.2 * (step - 0.5)
    saturation *= 0.6 + 0.4 * (count * SQRT_2 % 1)
    return _hsv(hue, saturation, max(value, 0.7) * (0.7 + 0.3 * step))
