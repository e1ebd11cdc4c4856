"""The learning rate of each step."""

import math
from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.schema import Tensor


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, by which a subclass' `decayed` rate is multiplied.

    Args:
        learning_rate: float, after the warm-up.
        warmup_steps: int; the rate grows linearly from `warmup_factor` of itself over these.
        warmup_factor: float.
        **others: what `decayed` needs.

    Call: step, an int scalar, 0 for the first -> float32 scalar; float64 if that is Keras' floatx.
    """

    def __init__(
        self, learning_rate: float, warmup_steps: int, warmup_factor: float, **others: Any
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "warmup_factor": warmup_factor,
            **others,
        }

    def __call__(self, step: Tensor) -> Tensor:
        config = self.config
        dtype = full_dtype(keras.config.floatx())
        step = ops.cast(step, dtype)
        rate = self.decayed(ops.convert_to_tensor(config["learning_rate"], dtype), step)
        if config["warmup_steps"]:
            done = ops.minimum(step / config["warmup_steps"], 1.0)
            rate = rate * (config["warmup_factor"] * (1.0 - done) + done)
        return rate

    def decayed(self, rate: Tensor, step: Tensor) -> Tensor:
        """The rate that `rate` has become by `step`, both float scalars."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return self.config


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class WarmupStepDecay(WarmupSchedule):
    """Linear warm-up, then a drop at each of some steps.

    Args:
        learning_rate, warmup_steps, warmup_factor: see `WarmupSchedule`.
        drop_steps: steps from which on the rate is multiplied by `drop_factor` once more.
        drop_factor: float.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        drop_steps: Iterable[int] = (),
        drop_factor: float = 0.1,
    ) -> None:
        super().__init__(
            learning_rate,
            warmup_steps,
            warmup_factor,
            drop_steps=tuple(drop_steps),
            drop_factor=drop_factor,
        )

    def decayed(self, rate: Tensor, step: Tensor) -> Tensor:
        for drop_step in self.config["drop_steps"]:
            rate = ops.where(step >= drop_step, rate * self.config["drop_factor"], rate)
        return rate


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class WarmupCosineDecay(WarmupSchedule):
    """Linear warm-up, under half a period of the cosine over all steps.

    Args:
        learning_rate, warmup_steps, warmup_factor: see `WarmupSchedule`.
        num_steps: int, steps after which the rate is `end_factor` of the full one.
        end_factor: float.

    Reference: SGDR, arXiv:1608.03983, equation 5.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        num_steps: int = 90000,
        end_factor: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            warmup_steps,
            warmup_factor,
            num_steps=num_steps,
            end_factor=end_factor,
        )

    def decayed(self, rate: Tensor, step: Tensor) -> Tensor:
        done, end = ops.minimum(step / self.config["num_steps"], 1.0), self.config["end_factor"]
        return rate * (end + (1.0 - end) * (0.5 + 0.5 * ops.cos(math.pi * done)))


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class WarmupPolynomialDecay(WarmupSchedule):
    """Linear warm-up, under a power of the share of the steps that are left.

    Args:
        learning_rate, warmup_steps, warmup_factor: see `WarmupSchedule`.
        num_steps: int, steps after which the rate is `end_factor` of the full one.
        end_factor: float.
        power: float; 1 is a straight line.

    Reference: ParseNet, arXiv:1506.04579, section 4.1, where the power is 0.9.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        num_steps: int = 90000,
        end_factor: float = 0.0,
        power: float = 0.9,
    ) -> None:
        super().__init__(
            learning_rate,
            warmup_steps,
            warmup_factor,
            num_steps=num_steps,
            end_factor=end_factor,
            power=power,
        )

    def decayed(self, rate: Tensor, step: Tensor) -> Tensor:
        left, end = 1.0 - step / self.config["num_steps"], self.config["end_factor"]
        return rate * (end + (1.0 - end) * ops.maximum(left, 0.0) ** self.config["power"])


def build_schedule(config: OptimizerConfig, num_steps: int | None = None) -> WarmupSchedule:
    """Returns the learning-rate schedule of an `OptimizerConfig`.

    Args:
        config: `OptimizerConfig`.
        num_steps: int, the steps of the run; None where the schedule is "steps".
    """
    warmup = (config.learning_rate, config.warmup_steps, config.warmup_factor)
    if config.schedule == "steps":
        return WarmupStepDecay(*warmup, config.drop_steps, config.drop_factor)
    if num_steps is None:
        raise ValueError(f"The schedule {config.schedule!r} needs `num_steps`. Received: None")
    if config.schedule == "cosine":
        return WarmupCosineDecay(*warmup, num_steps, config.end_factor)
    return WarmupPolynomialDecay(*warmup, num_steps, config.end_factor, config.power)
