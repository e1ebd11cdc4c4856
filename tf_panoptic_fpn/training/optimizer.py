"""Stochastic gradient descent in the PyTorch form."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.schema import Tensor
from tf_panoptic_fpn.training.schedule import build_schedule

NORM_WEIGHTS = ("gamma", "beta")
MOMENTUM_STYLES = ("torch", "keras")


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum and weight decay, in PyTorch's form or Keras'.

    "torch": `v = momentum v + g + weight_decay w; w = w - learning_rate v`.
    "keras": `v = momentum v - learning_rate (g + weight_decay w); w = w + v`.

    Keras' velocity holds the learning rate of each step, so a drop of the rate takes full effect
    some steps late there; PyTorch's is immediate, and the published recipes were run with it. The
    scale and shift of normalisation layers do not decay, biases do.

    An element whose gradient is not finite keeps its weight and velocity.

    Args:
        learning_rate: float or schedule.
        momentum: float.
        weight_decay: float, L2 penalty added to the gradient.
        momentum_style: "torch" or "keras".
        reduces_gradients: bool; under `tf.distribute`, False says that the caller has summed the
            gradients over the replicas.

    Raises:
        ValueError: if `momentum_style` is another word.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        momentum_style: str = "torch",
        reduces_gradients: bool = True,
        name: str = "sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2_penalty = weight_decay
        if momentum_style not in MOMENTUM_STYLES:
            raise ValueError(
                f"`momentum_style` must be one of {MOMENTUM_STYLES}. Received: {momentum_style!r}"
            )
        self.momentum_style = momentum_style
        self.reduces_gradients = reduces_gradients

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        self.decays = [v.path.rsplit("/", 1)[-1] not in NORM_WEIGHTS for v in variables]

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        decay = self.l2_penalty if self.decays[index] else 0.0
        is_finite = ops.isfinite(gradient)
        rate = ops.cast(learning_rate, variable.dtype)
        into_velocity, out_of_velocity = (
            (1.0, rate) if self.momentum_style == "torch" else (rate, 1.0)
        )
        moved = self.momentum * velocity + into_velocity * (gradient + decay * variable)
        new_velocity = ops.where(is_finite, moved, velocity)
        step = ops.where(is_finite, out_of_velocity * new_velocity, 0.0)
        self.assign(velocity, new_velocity)
        self.assign_sub(variable, step)

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        if self.reduces_gradients:
            return super()._all_reduce_sum_gradients(grads_and_vars)
        return grads_and_vars

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2_penalty,
            "momentum_style": self.momentum_style,
            "reduces_gradients": self.reduces_gradients,
        }


def build_optimizer(config: OptimizerConfig) -> SGD:
    """Returns the optimizer of an `OptimizerConfig`, for gradients already summed over replicas."""
    return SGD(
        build_schedule(config),
        config.momentum,
        config.weight_decay,
        config.momentum_style,
        reduces_gradients=False,
    )
