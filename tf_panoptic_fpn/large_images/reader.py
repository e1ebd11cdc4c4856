"""Reading windows of images that may be too large for memory."""

import functools
import os
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image

from tf_panoptic_fpn.errors import ConfigError, DamagedFileError, DataError
from tf_panoptic_fpn.formats.images import FULL_RANGE, decoding, read_image

CACHED_BYTES = 256 << 20  # of decoded pieces of a file
# Names of TIFFs and slides that Pillow does not know.
SLIDE_SUFFIXES = (".btf", ".ndpi", ".scn", ".svs", ".tf8")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two above 4 GB
# Tags of GeoTIFF: pixel scale, tie points, transformation, keys and their numbers and texts.
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
_AXES = {"YX": (0, 1, None), "YXS": (0, 1, 2), "YXC": (0, 1, 2), "SYX": (1, 2, 0), "CYX": (1, 2, 0)}


class LargeImage(Protocol):
    """An image of which windows are read; a context manager.

    Attributes:
        shape: (H, W).
        geo_tags: the tags that place a GeoTIFF on the earth, as tifffile's `extratags`; or empty.
    """

    shape: tuple[int, int]
    geo_tags: list[tuple]

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns a window, uint8 `[bottom - top, right - left, 3]`, RGB.

        Raises:
            DamagedFileError: if it cannot be decoded.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_large_image(
    path: str | os.PathLike, pixel_range: tuple[int, int] = FULL_RANGE
) -> LargeImage:
    """Opens an image to read windows of it.

    Of a TIFF (GeoTIFF, OME-TIFF, or a slide that tifffile reads) only what is asked for is decoded,
    and up to `CACHED_BYTES` are kept. Its first image is read, at full resolution. Any other file
    is read whole, as `formats.images.read_image` does, up to Pillow's limit on pixels.

    Args:
        path: of the file.
        pixel_range: `(low, high)`, the values of 16-bit pixels that become 0 and 255.

    Raises:
        ConfigError: if the file is a TIFF and tifffile or zarr is not installed.
        DataError: if the file cannot be read, or not in windows.
    """
    with decoding(path, "image"), open(path, "rb") as file:
        is_tiff = file.read(4) in _TIFF
    return _Tiff(path, pixel_range) if is_tiff else _Whole(path, pixel_range)


def import_tifffile() -> Any:
    """Returns the module; raises ConfigError if it is not installed."""
    try:
        import tifffile
        import zarr  # noqa: F401, by which tifffile reads windows
    except ImportError:
        raise ConfigError(
            "Tiles need tifffile and zarr: pip install 'tf-panoptic-fpn[large]'"
        ) from None
    return tifffile


class _Whole:
    """An image in memory."""

    def __init__(self, path: str | os.PathLike, pixel_range: tuple[int, int]) -> None:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
        try:
            with decoding(path, "image"), Image.open(path):
                pass
        except DamagedFileError as error:
            if "exceeds limit" not in str(error):
                raise
            raise DataError(
                f"{path}: an image of more than {limit} pixels must be a TIFF, which is read tile "
                "by tile"
            ) from None
        self._pixels = read_image(path, pixel_range)
        self.shape = self._pixels.shape[:2]
        self.geo_tags: list[tuple] = []

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return self._pixels[top:bottom, left:right]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Tiff:
    """The first image of a TIFF file, at full resolution."""

    def __init__(self, path: str | os.PathLike, pixel_range: tuple[int, int]) -> None:
        tifffile = import_tifffile()
        self._path = path
        with decoding(path, "image"):
            self._file = tifffile.TiffFile(path)
        try:
            with decoding(path, "image"):
                self._open(pixel_range)
        except BaseException:
            self._file.close()
            raise

    def _open(self, pixel_range: tuple[int, int]) -> None:
        import zarr

        level = self._file.series[0]
        self._page = level.keyframe
        self._to_rgb = _pixel_reader(self._path, level, pixel_range)
        self._y, self._x, self._channels = _AXES[level.axes]
        self.shape = level.shape[self._y], level.shape[self._x]
        tags = [self._page.tags[code] for code in _GEO_TAGS if code in self._page.tags]
        self.geo_tags = [(t.code, int(t.dtype), t.count, t.value, True) for t in tags]
        self._is_mapped = level.dataoffset is not None
        if self._is_mapped:
            self._mapped = {
                "dtype": level.dtype.newbyteorder(self._file.byteorder),
                "offset": level.dataoffset,
                "shape": level.shape,
            }
            return
        self._array = zarr.open(level.aszarr(level=0), mode="r")
        size = level.dtype.itemsize * int(np.prod(self._array.chunks))
        if self._channels is not None:
            size *= -(-level.shape[self._channels] // self._array.chunks[self._channels])
        if size > CACHED_BYTES:
            raise DataError(
                f"{self._path}: must be stored in tiles or strips, to be read tile by tile. "
                f"Received: pieces of {size >> 20} MiB"
            )
        self._piece = functools.lru_cache(max(CACHED_BYTES // size, 1))(self._read_piece)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        with decoding(self._path, "image"):
            if self._is_mapped:
                # Mapped anew each time: what was read does not count as memory for long.
                array = np.memmap(self._path, mode="r", **self._mapped)
                return self._to_rgb(array[self._window(slice(top, bottom), slice(left, right))])
            window = np.empty((bottom - top, right - left, 3), np.uint8)
            height, width = self._array.chunks[self._y], self._array.chunks[self._x]
            for row in range(top // height, -(-bottom // height)):
                for column in range(left // width, -(-right // width)):
                    y, x = row * height, column * width
                    piece = self._piece(row, column)
                    piece = piece[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
                    y, x = max(y, top) - top, max(x, left) - left
                    window[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
            return window

    def _read_piece(self, row: int, column: int) -> np.ndarray:
        """A tile or strip as it is stored, uint8 `[h, w, 3]`."""
        height, width = self._array.chunks[self._y], self._array.chunks[self._x]
        rows = slice(row * height, (row + 1) * height)
        columns = slice(column * width, (column + 1) * width)
        return self._to_rgb(self._array[self._window(rows, columns)])

    def _window(self, rows: slice, columns: slice) -> tuple[slice, ...]:
        window = [slice(None)] * (2 if self._channels is None else 3)
        window[self._y], window[self._x] = rows, columns
        return tuple(window)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _pixel_reader(path: str | os.PathLike, level: Any, pixel_range: tuple[int, int]) -> Any:
    """Returns a function from stored pixels to uint8 `[h, w, 3]`; raises DataError for others."""
    page = level.keyframe
    if level.axes not in _AXES:
        raise DataError(
            f"{path}: must hold one image, with its channels first or last. Received: the axes "
            f"{level.axes}, of {[*level.shape]}"
        )
    channels = _AXES[level.axes][2]
    count = 1 if channels is None else level.shape[channels]
    kind = page.photometric.name
    colors = {"MINISBLACK": (1, 2, 3), "MINISWHITE": (1,), "PALETTE": (1,), "RGB": (3, 4)}
    colors["YCBCR"] = (3,)
    if count not in colors.get(kind, ()):
        raise DataError(
            f"{path}: must be grey, RGB or of a palette. Received: {kind} of {count} channel(s)"
        )
    if level.dtype.name not in ("bool", "uint8", "uint16"):
        raise DataError(f"{path}: pixels must be of 8 or 16 bits. Received: {level.dtype.name}")
    orientation = page.tags.valueof("Orientation", 1)
    if orientation != 1:
        raise DataError(f"{path}: must be stored upright. Received: the orientation {orientation}")
    palette = None
    if kind == "PALETTE":
        palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else page.bitspersample[0]

    def to_rgb(pixels: np.ndarray) -> np.ndarray:
        if channels == 0:
            pixels = np.moveaxis(pixels, 0, -1)
        if palette is not None:
            return palette[pixels]
        if level.dtype.name == "uint16":
            low, high = pixel_range
            pixels = (np.clip(pixels.astype(np.int32), low, high) - low) * 255 // (high - low)
        elif bits < 8:
            pixels = pixels.astype(np.uint8) * (255 // (2**bits - 1))
        pixels = pixels.astype(np.uint8, copy=False)
        if kind == "MINISWHITE":
            pixels = 255 - pixels
        if channels is None:
            pixels = pixels[..., None]
        if count < 3:
            pixels = np.broadcast_to(pixels[..., :1], (*pixels.shape[:2], 3))
        return np.ascontiguousarray(pixels[..., :3])

    return to_rgb
