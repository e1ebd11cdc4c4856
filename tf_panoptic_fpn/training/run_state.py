"""What decides the future of a run beside its weights; a part of each checkpoint."""

import tensorflow as tf

from tf_panoptic_fpn.training.loss_scale import LossScale
from tf_panoptic_fpn.training.weight_average import WeightAverage


class RunState(tf.Module):
    """Variables of a run that are saved and restored with the weights.

    Args:
        loss_scale, average: what the run has of them.
    """

    def __init__(
        self, loss_scale: LossScale | None = None, average: WeightAverage | None = None
    ) -> None:
        super().__init__()
        self.loss_scale = loss_scale
        self.average = average
        with tf.device("CPU"):
            self.skipped_in_a_row = tf.Variable(0, dtype=tf.int64)  # steps, up to the last one
            self.validated_step = tf.Variable(0, dtype=tf.int64)  # of the last validation
            self.best = tf.Variable(float("-inf"), dtype=tf.float64)  # of `evaluate.keep_best`
            self.best_step = tf.Variable(0, dtype=tf.int64)
            self.validations_since_best = tf.Variable(0, dtype=tf.int64)

    def is_out_of_patience(self, patience: int) -> bool:
        """Whether the best figure is `patience` validations old; 0 is never."""
        return 0 < patience <= int(self.validations_since_best.numpy())
