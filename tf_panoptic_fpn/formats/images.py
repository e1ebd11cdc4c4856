"""Reading images and label maps."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import ExifTags, Image

from tf_panoptic_fpn.errors import DamagedFileError, DataError
from tf_panoptic_fpn.messages import one_line

T = TypeVar("T")
File = str | os.PathLike | BinaryIO  # a path, or an open file

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What TensorFlow's decoders read as `read_image` does: (format, mode, mode of the stored pixels).
_PLAIN = {
    *(("JPEG", mode, mode) for mode in ("L", "RGB")),
    *(("PNG", mode, mode) for mode in ("L", "LA", "RGB", "RGBA")),
}
_PLAIN_LABELS = {("L", "L"), ("I;16", "I;16B"), ("I", "I;16B")}
FULL_RANGE = (0, 65535)  # of 16-bit pixels
_GREY_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_LABELS = {*_PLAIN_LABELS, ("P", "P"), ("P", "P;1"), ("P", "P;2"), ("P", "P;4")}


@dataclasses.dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the head of an image file says: its upright size, and how its pixels are stored."""

    height: int
    width: int
    orientation: int  # EXIF, 1..8
    is_plain: bool  # TensorFlow's decoders give the pixels of `read_image`, before they are upright


def read_header(path: str | os.PathLike) -> ImageHeader:
    """Reads the head of an image file, without its pixels.

    Raises:
        DamagedFileError: if the file is missing, empty or no image.
    """
    with decoding(path, "image"), Image.open(path) as image:
        orientation = _orientation(image)
        width, height = image.size if orientation < 5 else image.size[::-1]
        is_plain = (image.format, image.mode, _stored(image)) in _PLAIN
        return ImageHeader(height, width, orientation, is_plain)


def shown_size(path: str | os.PathLike, size: tuple[int, int], stated_size: tuple[int, int]) -> str:
    """Returns the size of an image as text, which says if the stated one is that before rotation.

    Args:
        path: the image.
        size: `(height, width)`, upright.
        stated_size: `(height, width)`, where it should be the other.
    """
    is_turned = tuple(stated_size) == tuple(size[::-1])
    try:
        is_turned = is_turned and read_header(path).orientation >= 5
    except DataError:
        is_turned = False
    text = "{}x{}".format(*size)
    return f"{text} upright (EXIF orientation)" if is_turned else text


def read_image(path: File, pixel_range: tuple[int, int] = FULL_RANGE) -> np.ndarray:
    """Reads an image file as RGB, upright.

    The EXIF orientation is applied (of a PNG, if it precedes the pixels); grey, palette, CMYK
    and 16-bit images become 8-bit RGB, and an alpha channel is dropped.

    Args:
        path: an image of any format that Pillow reads.
        pixel_range: `(low, high)`, the values of 16-bit grey pixels that become 0 and 255;
            what lies beyond is clipped.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        DataError: if the file is missing, empty, truncated or cannot be decoded.
    """
    with decoding(path, "image"), Image.open(path) as image:
        return np.asarray(_to_rgb(image, pixel_range))


def used_range(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns the lowest and the highest value of a 16-bit grey image; None for any other image.

    Raises:
        DamagedFileError: as `read_image`.
    """
    with decoding(path, "image"), Image.open(path) as image:
        if not image.mode.startswith("I"):
            return None
        values = np.asarray(image)
        return int(values.min()), int(values.max())


def convert_image(image: Image.Image, pixel_range: tuple[int, int] = FULL_RANGE) -> np.ndarray:
    """As `read_image`, of an image that Pillow has opened.

    Raises:
        DamagedFileError: if it cannot be decoded.
    """
    with decoding(getattr(image, "filename", "") or "image", "image"):
        return np.asarray(_to_rgb(image, pixel_range))


def is_plain_label_png(path: str | os.PathLike) -> bool:
    """Tells whether TensorFlow's decoders read a label map as `read_label_png` does, from its head.

    Raises:
        DamagedFileError: if the file is missing, empty or no image.
    """
    with decoding(path, "label map"), Image.open(path) as image:
        return image.format == "PNG" and (image.mode, _stored(image)) in _PLAIN_LABELS


def read_label_png(path: File) -> np.ndarray:
    """Reads a map whose values are labels or ids.

    Args:
        path: a grey PNG of 8 or 16 bits, or a palette PNG, whose values are the positions of the
            colours.

    Returns:
        int32 `[H, W]`.

    Raises:
        DataError: if the file is missing, cannot be decoded or is another image.
    """
    with decoding(path, "label map"), Image.open(path) as image:
        # Of a grey PNG of less than 8 bits, Pillow stretches the values.
        if image.format != "PNG" or (image.mode, _stored(image)) not in _LABELS:
            received = f"{image.format}, mode {image.mode}, stored as {_stored(image)}"
            raise DataError(
                f"{path}: a label map must be a PNG, grey with 8 or 16 bits or with a palette. "
                f"Received: {received}"
            )
        return np.asarray(image).astype(np.int32)


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """Reads a map whose pixel values are labels.

    Args:
        path: a grey PNG of up to 16 bits, or a palette PNG, of which the indices are read and not
            the colours, as the official tools do.

    Returns:
        int32 `[H, W]`.

    Raises:
        DataError: if the file is missing, cannot be decoded or has colours.
    """
    return open_map(path, _labels)


def open_map(path: str | os.PathLike, read: Callable[[Image.Image], T]) -> T:
    """Opens an image file and returns `read(image)`.

    Raises:
        DataError: if the file is missing or cannot be decoded, and what `read` raises as such.
    """
    try:
        with Image.open(path) as image:
            return read(image)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # of many kinds, see `decoding`
        raise DataError(f"{path}: the map cannot be decoded: {one_line(error)}") from None


def _labels(image):
    stored = str(_stored(image))
    is_stretched = stored.startswith("L;")  # from less than 8 bits, by Pillow
    if image.mode not in _GREY_MODES or is_stretched:
        received = f"mode {image.mode}, stored as {stored}"
        raise DataError(f"a label map must be grey or have a palette. Received: {received}")
    return np.asarray(image).astype(np.int32)


def resized_size(height: int, width: int, short_side: int, max_long_side: int) -> tuple[int, int]:
    """Size with a shorter side of `short_side`, or less where the longer would pass its limit.

    Returns:
        `(height, width)`, of at least 1, in pixels as the arguments are.

    Reference: `ResizeShortestEdge` of detectron2, with the same rounding.
    """
    scale = short_side / min(height, width)
    long_side = scale * max(height, width)
    shrink = min(max_long_side / long_side, 1.0)
    short, long = (max(int(side * shrink + 0.5), 1) for side in (short_side, long_side))
    return (short, long) if height < width else (long, short)


@contextlib.contextmanager
def decoding(path: File, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one line that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DamagedFileError(f"{path}: the {what} file is missing") from None
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError and others.
    except Exception as error:
        if not isinstance(path, (str, os.PathLike)):
            raise DamagedFileError(f"the {what} cannot be decoded: {one_line(error)}") from None
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise DamagedFileError(f"{path}: the {what} file is empty") from None
        raise DamagedFileError(f"{path}: the {what} cannot be decoded: {one_line(error)}") from None


def _stored(image):
    """The mode of an opened image's pixels in the file."""
    arguments = image.tile[0].args if image.tile else None
    return arguments[0] if isinstance(arguments, tuple) else arguments


def _orientation(image):
    """The EXIF orientation of an opened image, from its head alone."""
    # Of a PNG without, Pillow would decode all pixels to look behind them.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _TRANSPOSE else 1


def _to_rgb(image, pixel_range=FULL_RANGE):
    orientation = _orientation(image)
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255
        low, high = pixel_range
        grey = np.clip(np.asarray(image).astype(np.int64), low, high)
        image = Image.fromarray(((grey - low) * 255 // (high - low)).astype(np.uint8))
    return image.convert("RGB")
