"""The learning rate of each step."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.schema import Tensor


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a drop at each of some steps.

    Args:
        learning_rate: float, after the warm-up.
        warmup_steps: int; the rate grows linearly from `warmup_factor` of itself over these.
        warmup_factor: float.
        drop_steps: steps from which on the rate is multiplied by `drop_factor` once more.
        drop_factor: float.

    Call: step, an int scalar, 0 for the first -> float32 scalar; float64 if that is Keras' floatx.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        drop_steps: Iterable[int] = (),
        drop_factor: float = 0.1,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "warmup_factor": warmup_factor,
            "drop_steps": tuple(drop_steps),
            "drop_factor": drop_factor,
        }

    def __call__(self, step: Tensor) -> Tensor:
        config = self.config
        dtype = full_dtype(keras.config.floatx())
        step = ops.cast(step, dtype)
        rate = ops.convert_to_tensor(config["learning_rate"], dtype)
        for drop_step in config["drop_steps"]:
            rate = ops.where(step >= drop_step, rate * config["drop_factor"], rate)
        if config["warmup_steps"]:
            done = ops.minimum(step / config["warmup_steps"], 1.0)
            rate = rate * (config["warmup_factor"] * (1.0 - done) + done)
        return rate

    def get_config(self) -> dict[str, Any]:
        return self.config


def build_schedule(config: OptimizerConfig) -> WarmupStepDecay:
    """Returns the learning-rate schedule of an `OptimizerConfig`."""
    return WarmupStepDecay(
        config.learning_rate,
        config.warmup_steps,
        config.warmup_factor,
        config.drop_steps,
        config.drop_factor,
    )
