"""Stochastic gradient descent in the PyTorch form."""

from typing import Any

import keras
import tensorflow as tf

from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.ops.replicas import sum_over_replicas
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

    A step of which any gradient is not finite changes no weight and no velocity.

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

    def _backend_update_step(
        self, grads: list, trainable_variables: list, learning_rate: Any
    ) -> None:
        if self.reduces_gradients:  # before they are tested
            grads = sum_over_replicas(list(grads))
        is_finite = tf.math.is_finite(tf.linalg.global_norm(grads))
        rate = tf.convert_to_tensor(learning_rate)
        # The kernel does `v = momentum v + g; w = w - step v`, or nothing with these: 1, 0 and 0.
        step, scale = (rate, 1.0) if self.momentum_style == "torch" else (-1.0, -rate)
        step, scale, momentum = (
            tf.where(is_finite, tf.convert_to_tensor(value, rate.dtype), off)
            for value, off in ((step, 0.0), (scale, 0.0), (self.momentum, 1.0))
        )
        scalars = (step, scale, momentum, scale * self.l2_penalty)
        super()._backend_update_step(grads, trainable_variables, scalars)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Any) -> None:
        """Updates a `tf.Variable`; `learning_rate` is what `_backend_update_step` makes of it."""
        index = self._get_variable_index(variable)
        step, scale, momentum, decay = (tf.cast(x, variable.dtype) for x in learning_rate)
        gradient = tf.math.multiply_no_nan(tf.cast(gradient, variable.dtype), scale)
        if self.l2_penalty and self.decays[index]:
            gradient += decay * variable
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.velocities[index].value.handle,
            lr=step,
            grad=gradient,
            momentum=momentum,
        )

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
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
