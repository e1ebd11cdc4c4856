"""A profile of a few steps, for TensorBoard."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.workdir import Workdir


class StepProfile:
    """Records the steps from the first to the last of `train.profile`.

    Args:
        steps: (first, last), or () for none.
        workdir: `Workdir`; the profile goes to its `tensorboard`.
    """

    def __init__(self, steps: tuple[int, ...], workdir: Workdir) -> None:
        self.steps = range(steps[0], steps[1] + 1) if steps else range(0)
        self.folder = str(workdir.tensorboard)
        self.is_on = False

    @contextlib.contextmanager
    def of(self, step: int) -> Iterator[None]:
        """Records what a step does, if it is one of those."""
        if step not in self.steps:
            yield
            return
        if not self.is_on:
            tf.profiler.experimental.start(self.folder)
            self.is_on = True
        try:
            with tf.profiler.experimental.Trace("train", step_num=step, _r=1):
                yield
        except BaseException:
            self._stop(step)
            raise
        if step == self.steps[-1]:
            self._stop(step)

    def _stop(self, step: int) -> None:
        try:
            tf.profiler.experimental.stop()
        except (OSError, tf.errors.OpError) as error:
            logging.warning("the profile cannot be written; training goes on: %s", error)
        else:
            logging.info("the profile of the steps up to %d is in %s", step, self.folder)
        self.is_on = False
