"""Files that cannot be read while training goes on: found again, named, counted."""

import threading
from collections.abc import Callable

import numpy as np
from absl import logging

from tf_panoptic_fpn.data.index import DatasetIndex, is_portrait
from tf_panoptic_fpn.errors import DamagedFileError, DataError

_ALWAYS_ALLOWED = 3


class DamagedFiles:
    """The damaged images of a run; called from several threads at once.

    Args:
        index: `DatasetIndex`.
        check: a function of a row of the index that reads its files and raises a `DamagedFileError`
            or another `DataError`.
        max_share: float, of all images; training stops where more are damaged, but for the first 3.
        on_damaged: called as `on_damaged(path, reason)` once for each damaged image.
        on_error: called with the `DataError` that stops training.
    """

    def __init__(
        self,
        index: DatasetIndex,
        check: Callable[[int], object],
        max_share: float,
        on_damaged: Callable[[str, str], None] | None = None,
        on_error: Callable[[DataError], None] | None = None,
    ) -> None:
        self.image_paths = index.image_paths
        self.is_portrait = is_portrait(index.sizes)
        self.check = check
        self.max_damaged = max(int(max_share * len(index)), _ALWAYS_ALLOWED)
        self.on_damaged = on_damaged or _log_damaged
        self.on_error = on_error or (lambda error: None)
        self.damaged: set[int] = set()
        self.lock = threading.Lock()

    @property
    def max_candidates(self) -> int:
        """How many images can be tried for a place before training has to stop."""
        return min(self.max_damaged + 1, len(self.image_paths))

    def candidates(self, row: int) -> np.ndarray:
        """Returns the rows to try for a row: itself, the next of its orientation, the others."""
        others = np.roll(np.arange(len(self.image_paths)), -row)[1:]
        is_other = self.is_portrait[others] != self.is_portrait[row]
        return np.concatenate([[row], others[np.argsort(is_other, kind="stable")]])

    def candidate(self, row: int, number: int) -> np.ndarray:
        """Returns one of `candidates`, int32 `[]`."""
        return self.candidates(row)[number].astype(np.int32)

    def first_readable(self, row: int) -> object:
        """Reads an image, or the next in its place; raises DataError where it has to stop."""
        for candidate in self.candidates(row):
            try:
                return self.check(candidate)
            except DamagedFileError as error:
                self._count(candidate, str(error))
        raise DataError(f"{self._path(row)}: neither this nor any other image can be read")

    def explain(self, row: int, used_row: int) -> int:
        """Finds out why image `used_row` (-1: none) took the place of another.

        Args:
            row: int, the image that it was the turn of.
            used_row: int.

        Returns:
            `used_row`.

        Raises:
            DataError: if files contradict each other, or too many are damaged.
        """
        try:
            for candidate in self.candidates(row):
                if candidate == used_row:
                    return used_row
                if candidate not in self.damaged:
                    self._find_reason(candidate)
            raise DataError(f"{self._path(row)}: neither this nor any other image can be read")
        except DataError as error:
            self.on_error(error)
            raise

    def _find_reason(self, row: int) -> None:
        try:
            self.check(row)
        except DamagedFileError as error:
            self._count(row, str(error))
        else:
            self._count(row, f"{self._path(row)}: could not be read at first")

    def _count(self, row: int, reason: str) -> None:
        with self.lock:
            if row in self.damaged:
                return
            self.damaged.add(row)
            self.on_damaged(self._path(row), reason)
            if len(self.damaged) > self.max_damaged:
                raise DataError(
                    f"{reason}; that makes {len(self.damaged)} damaged images of "
                    f"{len(self.image_paths)}, more than `data.max_damaged_share` allows"
                )

    def _path(self, row: int) -> str:
        return self.image_paths[row].decode()


def _log_damaged(path: str, reason: str) -> None:
    logging.warning("skipped the damaged image %s: %s", path, reason)
