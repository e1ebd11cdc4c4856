"""Colours of segments, and of the text on them."""

import colorsys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError

RGB = tuple[int, int, int]  # 0-255
GOLDEN_RATIO = 0.6180339887  # multiples of irrational numbers, modulo 1, keep far apart
SQRT_2 = 1.4142135624
FIRST_HUE = 0.58


def segment_colors(segments: Iterable[Mapping[str, Any]], categories: CategoryTable) -> list[RGB]:
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
    seen: dict[int, int] = {}
    colors = []
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
        red, green, blue = color
        colors.append((red, green, blue))
    return colors


def text_color(background: RGB) -> RGB:
    """Returns black or white, whichever stands out more; the contrast is at least 4.5 to 1."""
    luminance = relative_luminance(background)
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def relative_luminance(color: RGB) -> float:
    """Relative luminance in [0, 1] of a colour 0-255. Reference: WCAG 2.1."""
    channels = np.asarray(color, np.float64) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _hsv(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _shade(color: RGB, count: int) -> RGB:
    """Returns the shade of the instance after `count` others; the first has the colour itself."""
    if count == 0:
        return color
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    step = count * GOLDEN_RATIO % 1
    hue += 0.2 * (step - 0.5)
    saturation *= 0.6 + 0.4 * (count * SQRT_2 % 1)
    return _hsv(hue, saturation, max(value, 0.7) * (0.7 + 0.3 * step))
