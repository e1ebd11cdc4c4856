"""A map of ids that lies on the disk, so that memory does not grow with it."""

import os

import numpy as np


class DiskMap:
    """An int32 map `[H, W]` in a file, row after row; what was never written reads as 0.

    Plain reads and writes: a mapped file counts as memory in use, and a full disk would end the
    program at once.

    Args:
        path: file to make.
        shape: (H, W).
    """

    def __init__(self, path: str | os.PathLike, shape: tuple[int, int]) -> None:
        self.shape = shape
        # Unbuffered: each row is one call.
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115
        self._file.truncate(4 * shape[0] * shape[1])

    def write(self, top: int, left: int, ids: np.ndarray) -> None:
        """Writes int32 `[h, w]` with its first pixel at (top, left).

        Raises:
            OSError: if the disk is full.
        """
        for row, line in enumerate(ids.astype(np.int32, copy=False)):
            self._file.seek(4 * ((top + row) * self.shape[1] + left))
            data = line.tobytes()
            if self._file.write(data) != len(data):
                raise OSError(28, os.strerror(28))

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns a window, int32 `[bottom - top, right - left]`."""
        ids = np.empty((bottom - top, right - left), np.int32)
        for row, line in enumerate(ids):
            self._file.seek(4 * ((top + row) * self.shape[1] + left))
            self._file.readinto(line.data)
        return ids

    def close(self) -> None:
        self._file.close()
