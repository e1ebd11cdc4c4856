"""The dynamic loss scale of training in float16."""

import tensorflow as tf


class LossScale(tf.Module):
    """What the loss is multiplied by, so that small gradients do not vanish in float16.

    A step whose gradients, summed over the replicas, are not finite halves it; many in a row that
    are finite double it. All replicas hold the same value: it is to be made in the scope of their
    strategy, and changed in cross-replica context.

    Args:
        initial: float, a power of 2, so that scaling rounds nothing.
        growth_steps: int, finite steps in a row after which the scale is doubled.

    Reference: Mixed Precision Training, arXiv:1710.03740, section 3.2.
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000) -> None:
        super().__init__()
        self.growth_steps = growth_steps
        self.value = tf.Variable(initial, dtype=tf.float32, trainable=False)
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def after_a_finite_step(self) -> None:
        """Counts the step, and doubles the scale if it is time."""
        count = self.finite_steps + 1
        is_time = count >= self.growth_steps
        self.value.assign(tf.where(is_time, 2.0 * self.value, self.value))
        self.finite_steps.assign(tf.where(is_time, tf.zeros_like(count), count))

    def after_a_skipped_step(self) -> None:
        """Halves the scale, down to 1."""
        self.value.assign(tf.maximum(self.value / 2.0, 1.0))
        self.finite_steps.assign(0)
