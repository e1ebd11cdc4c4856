"""Checkpoints of a run: model, optimizer and so the step; written atomically, the last few kept."""

import tensorflow as tf

from tf_panoptic_fpn.errors import ConfigError

KEPT = 3


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        model: the model, built.
        optimizer: the optimizer, built on the model's variables.
        folder: where the checkpoints are.
    """

    def __init__(self, model, optimizer, folder):
        self.optimizer = optimizer
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(folder), max_to_keep=KEPT)

    def restore(self):
        """Restores the last checkpoint, if there is one.

        Returns:
            int, steps done.

        Raises:
            ConfigError: if the last checkpoint does not fit the model.
        """
        path = self.manager.latest_checkpoint
        if path is None:
            return 0
        try:
            self.checkpoint.restore(path).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"{path}: does not fit the configured model: {reason}") from None
        return int(self.optimizer.iterations.numpy())

    def save(self, step):
        """Writes a checkpoint of `step` steps done."""
        self.manager.save(checkpoint_number=step)
