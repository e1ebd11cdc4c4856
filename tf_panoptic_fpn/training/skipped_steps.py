"""Steps whose gradients were not finite: after too many in a row the run stops."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.errors import TrainingError
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.workdir import Workdir


class SkippedSteps:
    """Counts the steps in a row that changed nothing.

    Each step is looked at when the next one has begun, so that the device has work meanwhile.

    Args:
        state: `RunState`, which holds the count.
        limit: int, steps in a row after which the run stops.
        workdir: `Workdir`; the batch of the step that stops it is written there.
    """

    def __init__(self, state: RunState, limit: int, workdir: Workdir) -> None:
        self.state = state
        self.limit = limit
        self.workdir = workdir
        self.waiting: tuple[int, Any, Mapping[str, tf.Tensor]] | None = None

    def add(self, step: int, batch: Any, row: Mapping[str, tf.Tensor]) -> None:
        """Takes a step and looks at the one before.

        Args:
            step: int, its number.
            batch: the (distributed) batch that it trained on.
            row: what the train step returned.

        Raises:
            TrainingError: see `look`.
        """
        self.look()
        self.waiting = step, batch, row

    def look(self) -> None:
        """Looks at the step that waits, if one does.

        Raises:
            TrainingError: if it is the last of `limit` steps in a row without finite gradients.
        """
        if self.waiting is None:
            return
        (step, batch, row), self.waiting = self.waiting, None
        count = self.state.skipped_in_a_row
        if float(row["is_finite"]) > 0:
            if count.numpy():
                count.assign(0)
            return
        count.assign_add(1)
        if count.numpy() >= self.limit:
            raise TrainingError(
                f"No gradient was finite in the {count.numpy()} steps up to {step}: lower "
                "`optimizer.learning_rate` or set `optimizer.clip_norm`, if the images are right; "
                f"{self._written(step, batch)}"
            )

    def _written(self, step: int, batch: Any) -> str:
        """Writes a batch for inspection; returns where it is, in words."""
        path = self.workdir.path / f"batch_of_step_{step}.npz"
        try:
            with replacing(path) as partial:
                np.savez(partial, allow_pickle=False, **_arrays(batch))
        except OSError as error:
            logging.warning("%s: cannot be written: %s", path, error.strerror)
            return "the last batch could not be written"
        return f"the last batch is in {path}"


def _arrays(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a batch, those of all replicas put together; of differing shapes, apart."""
    arrays = {}
    for name, value in batch.items():
        parts = [value] if tf.is_tensor(value) else list(value.values)
        parts = [part.numpy() for part in parts]
        if len({part.shape[1:] for part in parts}) == 1:
            arrays[name] = np.concatenate(parts)
        else:
            arrays.update({f"{name}_{number}": part for number, part in enumerate(parts)})
    return arrays
