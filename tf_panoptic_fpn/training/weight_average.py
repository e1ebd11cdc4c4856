"""The exponential moving average of a model's weights."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import batch_statistics


class WeightAverage(tf.Module):
    """The average of all weights that training changes, batch statistics included.

    Step n moves it by max(1 - decay, 1 / n) of its distance to the weights: at first it is their
    plain mean, so that the weights a run begins with leave no trace, then the exponential average.

    Args:
        model: the model, built; under the scope of its strategy, as this is.
        decay: float, in (0, 1).

    Reference: Mean teachers, arXiv:1703.01780, section 2; the plain mean is that of Polyak and
    Juditsky, 1992.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.extended = tf.distribute.get_strategy().extended
        self.num_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        # In a closure of its own, or the model would be a part of this in a checkpoint.
        weights = [*model.trainable_variables, *batch_statistics(model)]
        self.averaged = lambda: weights
        self.averages = [
            tf.Variable(weight.value, trainable=False, name=f"average/{weight.path}")
            for weight in weights
        ]

    def update(self) -> None:
        """Takes the weights of one more step; in cross-replica context."""
        self.num_steps.assign_add(1)
        first = 1.0 / tf.cast(self.num_steps, tf.float64)
        share = tf.maximum(tf.constant(1.0 - self.decay, tf.float64), first)

        def move(average: tf.Variable, weight: tf.Variable) -> None:
            average.assign_add(tf.cast(share, average.dtype) * (weight - average))

        for average, weight in zip(self.averages, self.averaged(), strict=True):
            self.extended.update(average, move, args=(weight.value,), group=False)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this context the model has the averages for weights; its own after it."""
        own = [ops.convert_to_numpy(weight) for weight in self.averaged()]
        for weight, average in zip(self.averaged(), self.averages, strict=True):
            weight.assign(average.numpy())
        try:
            yield
        finally:
            for weight, value in zip(self.averaged(), own, strict=True):
                weight.assign(value)


def average_in_use(average: WeightAverage | None) -> contextlib.AbstractContextManager[None]:
    """Returns `average.in_use()`, or a context that changes nothing where there is no average."""
    return contextlib.nullcontext() if average is None else average.in_use()
