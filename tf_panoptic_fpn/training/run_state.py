"""What decides the future of a run beside its weights; a part of each checkpoint."""

import tensorflow as tf


class RunState(tf.Module):
    """Counts of a run, as variables, so that they are saved and restored with the weights."""

    def __init__(self) -> None:
        super().__init__()
        with tf.device("CPU"):
            self.skipped_in_a_row = tf.Variable(0, dtype=tf.int64)  # steps, up to the last one
