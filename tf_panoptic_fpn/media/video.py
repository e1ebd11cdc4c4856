"""Reading and writing videos, one frame in memory at a time."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Self

import numpy as np

from tf_panoptic_fpn.errors import ConfigError, DamagedFileError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})


class VideoReader:
    """The frames of a video file; a context manager.

    Attributes: `rate`, frames a second, a fraction; `num_frames`, 0 where the file does not say.

    Args:
        path: of the file.

    Raises:
        ConfigError: if PyAV is not installed.
        DamagedFileError: if the file cannot be opened or has no pictures.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = path
        self._av = _import_av(path)
        with self._decoding():
            self._container = self._av.open(os.fspath(path))
        if not self._container.streams.video:
            self._container.close()
            raise DamagedFileError(f"{path}: the video has no pictures")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or self._stream.guessed_rate
        self.num_frames = self._stream.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields each frame as uint8 `[H, W, 3]`, RGB, upright.

        Raises:
            DamagedFileError: at a frame that cannot be decoded.
        """
        with self._decoding():
            for frame in self._container.decode(self._stream):
                image = frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(np.rot90(image, frame.rotation // 90))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            reason = " ".join(str(error.strerror).split())
            raise DamagedFileError(f"{self._path}: the video cannot be decoded: {reason}") from None


class VideoWriter:
    """Writes an H.264 video without sound; a context manager.

    Args:
        path: file to write; its suffix says the container.
        rate: frames a second, an int or a fraction.
    """

    def __init__(self, path: str | os.PathLike, rate: Fraction | int) -> None:
        self._av = _import_av(path)
        self._container = self._av.open(os.fspath(path), "w")
        self._stream = self._container.add_stream("h264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._is_empty = True

    def write(self, image: np.ndarray) -> None:
        """Adds a frame, uint8 `[H, W, 3]`, RGB, of the size of the first; the format has even
        sides, so an odd last row or column is left out."""
        height, width = (side - side % 2 for side in image.shape[:2])
        if self._is_empty:
            self._stream.height, self._stream.width = height, width
            self._is_empty = False
        picture = np.ascontiguousarray(image[:height, :width])
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_empty:
            self._container.mux(self._stream.encode())
        self._container.close()


def _import_av(path: str | os.PathLike) -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError(
            f"{path}: a video needs PyAV: pip install 'tf-panoptic-fpn[video]'"
        ) from None
    return av
