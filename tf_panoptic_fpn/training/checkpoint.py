"""Checkpoints of a run: model, optimizer and so the step; written atomically, the last few kept."""

import os
import pathlib
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.errors import TrainingError

KEPT = 3


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        model: the model, built.
        optimizer: the optimizer, built on the model's variables.
        folder: where the checkpoints are.
        others: what else decides the future of the run, by name; each a `tf.Module`, a Keras object
            or a variable.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        folder: str | os.PathLike,
        **others: Any,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.optimizer = optimizer
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, **others)
        try:
            self.manager = self._make_manager()
        except ValueError:  # its list of the files is damaged; the files need not be
            (self.folder / "checkpoint").unlink()
            self.manager = self._make_manager()

    def _make_manager(self) -> tf.train.CheckpointManager:
        return tf.train.CheckpointManager(self.checkpoint, str(self.folder), max_to_keep=KEPT)

    def restore(self) -> int:
        """Restores the newest checkpoint, or the one before where that is damaged.

        Returns:
            int, steps done; 0 without a checkpoint.

        Raises:
            TrainingError: if there are checkpoints and none can be restored.
        """
        damaged = []
        for step in sorted(self._steps(), reverse=True):
            path = self.folder / f"ckpt-{step}"
            try:
                self.checkpoint.restore(str(path)).assert_consumed()
            # TensorFlow raises OpError, IndexError, ValueError and others on a damaged file.
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                damaged.append(f"{path}: cannot be restored: {reason[:200]}")
                continue
            for line in damaged:
                logging.warning("%s; going on from step %d", line, step)
            return int(self.optimizer.iterations.numpy())
        if damaged:
            raise TrainingError(f"{damaged[0]} (nor can {len(damaged) - 1} older ones)")
        return 0

    def _steps(self) -> list[int]:
        """The steps of the files in the folder, whatever its own list of them says."""
        names = (path.stem.removeprefix("ckpt-") for path in self.folder.glob("ckpt-*.index"))
        return [int(name) for name in names if name.isdecimal()]

    def save(self, step: int) -> None:
        """Writes a checkpoint of `step` steps done."""
        self.manager.save(checkpoint_number=step)
