"""What is wrong with the data while training goes on."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.errors import DataError


class DataProblems:
    """What is wrong with the data: damaged images, skipped and logged once each, or an error."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}  # path of a damaged image -> why
        self.error: DataError | None = None

    def skip(self, path: str, reason: str) -> None:
        if path not in self.reasons:
            self.reasons[path] = reason
            logging.warning("skipped a damaged image: %s", reason)

    def stop(self, error: DataError) -> None:
        self.error = error

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Raises the error of the data in place of the one that TensorFlow makes of it."""
        try:
            yield
        except tf.errors.OpError:
            if self.error is not None:
                raise self.error from None
            raise
