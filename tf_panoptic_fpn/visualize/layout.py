"""Pictures of a size to read, and pictures joined."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_SHORT_SIDE = 480  # smaller images are enlarged, or labels would hide them


def enlarged_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size at which an image of `size` (H, W) is drawn: a shorter side of 480 or more."""
    scale = max(MIN_SHORT_SIDE / min(size), 1)
    return round(size[0] * scale), round(size[1] * scale)


def enlarge(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image bicubically, or a map to the nearest value; as it is at the same size.

    Args:
        array: uint8 `[H, W, 3]`, or an integer or bool map `[H, W]`.
        size: (H', W').

    Returns:
        The same at `[H', W']`; a map that was resized is int32.
    """
    if array.shape[:2] == tuple(size):
        return array
    if array.ndim == 3:
        picture, method = Image.fromarray(array), Image.Resampling.BICUBIC
    else:
        picture, method = Image.fromarray(array.astype(np.int32)), Image.Resampling.NEAREST
    return np.array(picture.resize((size[1], size[0]), method))


def side_by_side(images: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
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
