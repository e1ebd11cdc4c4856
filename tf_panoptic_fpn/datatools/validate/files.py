"""Checks of image files and panoptic maps."""

import hashlib
import os

import numpy as np
from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import read_image, shown_size, used_range
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png

_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_MOST_BITS = 14  # that cameras with less than 16 have


def check_image(
    path: str | os.PathLike, stated_size: tuple[int, int] | None
) -> tuple[list[tuple[str, str]], tuple[int, int] | None, bytes | None]:
    """Checks an image file.

    Args:
        path: the file.
        stated_size: `(height, width)` as the JSON says, or None.

    Returns:
        `(breaches, size, digest)`: list of pairs of rule and text, the upright `(height, width)`
        and a hash of the content; the last two are None where the file cannot be decoded.
    """
    breaches = missing_or_empty(path)
    if breaches:
        return breaches, None, None
    try:
        with Image.open(path) as image:
            kind, mode, (width, height) = image.format, image.mode, image.size
            orientation = image.getexif().get(_ORIENTATION, 1)
        size = read_image(path).shape[:2]
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except Image.DecompressionBombError as error:
        return [("bomb", str(error))], None, None
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError and others.
    except Exception as error:
        return [("undecodable", str(error).removeprefix(f"{path}: "))], None, None
    known = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    if known != kind and {known, kind} != {"JPEG", "MPO"}:
        breaches.append(("extension", f"the content is {kind}"))
    if mode != "RGB":
        breaches.append(("mode", f"{kind}, mode {mode}"))
    if Image.MAX_IMAGE_PIXELS and height * width > Image.MAX_IMAGE_PIXELS:
        breaches.append(("large", f"{width}x{height} (width x height)"))
    if orientation in range(2, 9):
        upright = f"upright {size[1]}x{size[0]} (width x height)"
        breaches.append(("rotated", f"orientation {orientation}, {upright}"))
    breaches += _range_breaches(path) if mode.startswith("I") else []
    if stated_size is not None and tuple(stated_size) != size:
        shown = shown_size(path, size, stated_size)
        text = "the JSON says {}x{} (HxW), the image is ".format(*stated_size)
        breaches.append(("size", text + shown))
    return breaches, size, digest


def _range_breaches(path):
    """The breach of a 16-bit image that has 14 bits or fewer."""
    low, high = used_range(path)
    bits = max(high.bit_length(), 8)
    if bits > _MOST_BITS:
        return []
    advice = f"`data.pixel_range: [0, {(1 << bits) - 1}]`"
    return [("pixel_range", f"values {low}..{high} of 0..65535, {bits} bits: {advice}")]


def read_map(path: str | os.PathLike) -> tuple[list[tuple[str, str]], np.ndarray | None]:
    """Reads a panoptic map with what is wrong with its file.

    Args:
        path: the PNG.

    Returns:
        `(breaches, ids)`: list of pairs of rule and text, and int32 `[H, W]` or None.
    """
    breaches = missing_or_empty(path)
    if breaches:
        return breaches, None
    try:
        with open(path, "rb") as file:
            header = file.read(26)
        # Pillow opens 16-bit colours as mode RGB too, and drops their lower bits.
        if header[:8] == _PNG_HEADER and header[24:] not in (b"", b"\x08\x02"):
            kinds = {0: "grey", 2: "RGB", 3: "palette", 4: "grey + alpha", 6: "RGBA"}
            depth, kind = header[24], kinds.get(header[-1], "unknown")
            return [("map_format", f"{depth}-bit {kind}")], None
        return [], read_panoptic_png(path)
    except (DataError, OSError) as error:
        return [("undecodable", str(error).removeprefix(f"{path}: "))], None


def missing_or_empty(path: str | os.PathLike) -> list[tuple[str, str]]:
    """Returns the breach of a file that is not there or has no content, as a list."""
    if not os.path.isfile(path):
        return [("missing_file", "the file is missing")]
    if os.path.getsize(path) == 0:
        return [("empty_file", "the file is empty")]
    return []
