"""PNG files for the tests of servers."""

import io

import numpy as np
from PIL import Image


def png(size, seed=0):
    """bytes of an image of (height, width)."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size[::-1]).save(buffer, "PNG")
    return buffer.getvalue()
