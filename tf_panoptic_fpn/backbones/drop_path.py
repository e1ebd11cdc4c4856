"""Stochastic depth: in training a block is left out for some of the images."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class DropPath(keras.layers.Layer):
    """Zeroes a residual branch for an image with some probability, and scales those that are kept.

    Args:
        rate: float in [0, 1), the probability.

    Call: float `[B, ...]`, with `training` -> the same shape.

    Reference: Deep Networks with Stochastic Depth, arXiv:1603.09382.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator() if rate else None

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or not self.rate:
            return inputs
        shape = (sides(inputs)[0], *(1,) * (len(inputs.shape) - 1))
        kept = keras.random.uniform(shape, seed=self.seed_generator) >= self.rate
        return inputs * (ops.cast(kept, inputs.dtype) / (1.0 - self.rate))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


def drop_path_rates(rate: float, count: int) -> list[float]:
    """The rate of each of `count` blocks, which grows linearly from 0 to `rate`."""
    return [rate * i / max(count - 1, 1) for i in range(count)]
