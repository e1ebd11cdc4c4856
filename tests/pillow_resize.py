"""Pillow's resizing, which the package's own must equal."""

import numpy as np
from PIL import Image


def resize_image(image, size):
    """Resizes an image bilinearly, antialiased when shrinking.

    Args:
        image: uint8 `[H, W, 3]`.
        size: `(height, width)`, ints.

    Returns:
        uint8 `[height, width, 3]`.
    """
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_labels(labels, size):
    """Resizes a label map to the label at each new pixel's centre.

    Args:
        labels: uint8 `[H, W]`.
        size: `(height, width)`, ints.

    Returns:
        uint8 `[height, width]`.
    """
    height, width = size
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
