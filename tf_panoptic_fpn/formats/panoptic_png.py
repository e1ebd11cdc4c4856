"""Reading and writing panoptic PNGs: id = R + 256 G + 65536 B.

Pillow inflates a PNG row by row, which for maps of few colours takes half of its time. In
`read_panoptic_ids` zlib-ng inflates the whole file at once, and Pillow is given the rows
uncompressed, to undo their filters.
"""

import os
import struct

import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import decoding

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_MAX_STORED = 65535  # bytes in an uncompressed block of a zlib stream


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
    """Ids `[H, W]` of the bytes of a PNG; None for an interlaced one."""
    header, compressed = _read_chunks(data)
    width, height, depth, color_type, _, _, interlace = struct.unpack(">IIBBBBB", header)
    mode = _COLOR_TYPES.get(color_type)
    if depth != 8 or mode not in ("RGB", "RGBA"):
        raise DataError(
            f"{path}: a panoptic map must be an 8-bit RGB PNG. Received: {depth}-bit {mode}"
        )
    if interlace:
        return None
    num_channels = len(mode)
    num_bytes = height * (1 + width * num_channels)  # each row starts with its filter's number
    rows = zlib_ng.decompress(compressed, bufsize=num_bytes)
    if len(rows) != num_bytes:  # Pillow would leave the rest void
        raise DataError(
            f"{path}: the panoptic map must hold {num_bytes} bytes. Received: {len(rows)}"
        )
    image = Image.frombytes(mode, (width, height), _store(memoryview(rows)), "zip", mode)
    # Four bytes a pixel are a little-endian integer, of which the fourth does not count.
    pixels = np.frombuffer(image.tobytes("raw", "RGBX" if mode == "RGB" else mode), "<i4")
    return pixels.reshape(height, width) & 0xFFFFFF


def _read_chunks(data):
    """Returns the header and the compressed data of a PNG, both checked against their CRC."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("not a PNG")
    header, compressed = b"", []
    kind, start = b"", len(_SIGNATURE)
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        start, end = start + 8, start + 8 + length
        if kind in (b"IHDR", b"IDAT"):
            (crc,) = struct.unpack_from(">I", data, end)
            if zlib_ng.crc32(data[start - 4 : end]) != crc:
                raise ValueError("the checksum of a chunk is wrong")
            if kind == b"IHDR":
                header = data[start:end]
            else:
                compressed.append(data[start:end])
        start = end + 4
    return header, b"".join(compressed)


def _store(data):
    """A zlib stream that holds `data`, a memoryview, uncompressed."""
    blocks = [b"\x78\x01"]
    for start in range(0, len(data), _MAX_STORED):
        length = min(_MAX_STORED, len(data) - start)
        is_last = start + length == len(data)
        blocks.append(struct.pack("<BHH", is_last, length, length ^ 0xFFFF))
        blocks.append(data[start : start + length])
    blocks.append(struct.pack(">I", zlib_ng.adler32(data)))
    return b"".join(blocks)


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


def write_panoptic_png(ids: np.ndarray, path: str | os.PathLike) -> None:
    """Writes a panoptic map in the COCO format; the inverse of `read_panoptic_png`.

    Args:
        ids: int `[H, W]`, segment ids below 2**24.
        path: the PNG to write.

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
