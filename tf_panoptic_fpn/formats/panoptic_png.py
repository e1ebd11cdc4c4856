"""Reading and writing panoptic PNGs: id = R + 256 G + 65536 B.

`read_panoptic_ids` decodes with kornia-rs, in a fifth of Pillow's time; what it cannot read, Pillow
reads or says what is wrong with.
"""

import os
import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import decoding

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_MOST_EXPANSION = 1032  # bytes that a byte of a zlib stream can stand for


def read_panoptic_ids(path: str | os.PathLike) -> np.ndarray:
    """Reads a panoptic map in the COCO format: id = R + 256 G + 65536 B.

    Args:
        path: an 8-bit RGB PNG, or RGBA, whose alpha is left out as panopticapi does.

    Returns:
        int32 `[H, W]`, segment ids; 0 is void.

    Raises:
        DataError: if the file is missing, cannot be decoded or is another kind of PNG.
    """
    try:
        with open(path, "rb") as file:
            ids = _decode(file.read(), path)
    except DataError:
        raise
    except Exception:  # what is wrong with a file, if anything is, Pillow says
        ids = None
    return read_panoptic_png(path) if ids is None else ids


def _decode(data, path):
    """Ids `[H, W]` of the bytes of a PNG."""
    from kornia_rs.io import decode_image_png_u8  # a server that writes alone does without

    if not data.startswith(_SIGNATURE):
        raise ValueError("not a PNG")
    width, height, depth, color_type = struct.unpack_from(">IIBB", data, 16)
    mode = _COLOR_TYPES.get(color_type)
    if depth != 8 or mode not in ("RGB", "RGBA"):
        raise DataError(
            f"{path}: a panoptic map must be an 8-bit RGB PNG. Received: {depth}-bit {mode}"
        )
    try:
        if height * width > _MOST_EXPANSION * len(data):
            raise ValueError("the file is too short for its size")
        pixels = decode_image_png_u8(data, (height, width), mode.lower())
    except Exception:
        _check_length(data, path)
        raise
    if mode == "RGBA":
        return np.ascontiguousarray(pixels).view("<i4")[..., 0] & 0xFFFFFF
    return _ids_of_colors(pixels)


def _ids_of_colors(rgb):
    """Ids `[H, W]` of uint8 `[H, W, 3]`, of which four bytes are read at each third."""
    values = np.ascontiguousarray(rgb).reshape(-1)
    ids = np.empty(rgb.shape[:2], np.int32)
    colors = np.ndarray(ids.size - 1, "<i4", values, strides=(3,))
    np.bitwise_and(colors, 0xFFFFFF, out=ids.reshape(-1)[:-1])
    ids[-1, -1] = int.from_bytes(values[-3:].tobytes(), "little")
    return ids


def _check_length(data, path):
    """Demands that a PNG, not interlaced, holds all its rows; Pillow would leave the rest void."""
    width, height, _, color_type, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    num_bytes = height * (1 + width * len(_COLOR_TYPES[color_type]))  # a row starts with its filter
    rows = zlib.decompress(b"".join(_compressed(data)))
    if len(rows) != num_bytes and not interlace:
        raise DataError(
            f"{path}: the panoptic map must hold {num_bytes} bytes. Received: {len(rows)}"
        )


def _compressed(data):
    """The data of a PNG's chunks of pixels."""
    kind, start = b"", len(_SIGNATURE)
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        start += 8
        if kind == b"IDAT":
            yield data[start : start + length]
        start += length + 4  # a checksum


def read_panoptic_png(path: str | os.PathLike) -> np.ndarray:
    """Reads a panoptic map in the COCO format: id = R + 256 G + 65536 B.

    Args:
        path: an 8-bit RGB PNG.

    Returns:
        int32 `[H, W]`, segment ids; 0 is void.

    Raises:
        DataError: if the file is missing, cannot be decoded or is not an 8-bit RGB PNG.
    """
    with decoding(path, "panoptic map"), Image.open(path) as image:
        if image.format != "PNG" or image.mode != "RGB":
            received = f"{image.format}, mode {image.mode}"
            raise DataError(f"{path}: a panoptic map must be an RGB PNG. Received: {received}")
        rgb = np.asarray(image).astype(np.int32)
    return rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16


def write_panoptic_png(ids: np.ndarray, path: str | os.PathLike | BinaryIO) -> None:
    """Writes a panoptic map in the COCO format; the inverse of `read_panoptic_png`.

    Args:
        ids: int `[H, W]`, segment ids below 2**24.
        path: the PNG to write, or an open file.

    Raises:
        ValueError: if `ids` is not `[H, W]`, or an id does not fit.
    """
    ids = np.asarray(ids)
    if ids.ndim != 2:
        raise ValueError(f"`ids` must be [H, W]. Received: shape {ids.shape}")
    if ids.size and not 0 <= ids.min() <= ids.max() < 1 << 24:
        raise ValueError(f"`ids` must be in [0, 2**24). Received: {ids.min()}..{ids.max()}")
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(path, format="PNG")
