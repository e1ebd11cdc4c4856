"""Stochastic gradient descent in the PyTorch form, and AdamW."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tf_panoptic_fpn.backbones.backbone import decays, rate_factors, variable_factors
from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.ops.replicas import sum_over_replicas
from tf_panoptic_fpn.schema import Tensor
from tf_panoptic_fpn.training.schedule import build_schedule

MOMENTUM_STYLES = ("torch", "keras")
LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum and weight decay, in PyTorch's form or Keras'.

    "torch": `v = momentum v + g + weight_decay w; w = w - learning_rate v`.
    "keras": `v = momentum v - learning_rate (g + weight_decay w); w = w + v`.

    Keras' velocity holds the learning rate of each step, so a drop of the rate takes full effect
    some steps late there; PyTorch's is immediate, and the published recipes were run with it. The
    scale and shift of normalisation layers do not decay, biases do.

    A step of which any gradient is not finite changes nothing: no weight, no velocity, no count.

    Args:
        learning_rate: float or schedule.
        momentum: float.
        weight_decay: float, L2 penalty added to the gradient.
        momentum_style: "torch" or "keras".
        reduces_gradients: bool; under `tf.distribute`, False says that the caller has summed the
            gradients over the replicas, and that they are finite.
        backbone_lr_factor: float, multiplies the learning rate of the backbone.
        depth_factors: what `backbones.backbone.rate_factors` returned, or None.

    Raises:
        ValueError: if `momentum_style` is another word.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        momentum_style: str = "torch",
        reduces_gradients: bool = True,
        backbone_lr_factor: float = 1.0,
        depth_factors: Mapping[str, float] | None = None,
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
        self.backbone_lr_factor = backbone_lr_factor
        self.depth_factors = depth_factors

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        self.decays = [decays(variable) for variable in variables]
        self.rate_factors = variable_factors(variables, self)

    def _backend_update_step(
        self, grads: list, trainable_variables: list, learning_rate: Any
    ) -> None:
        rate = tf.convert_to_tensor(learning_rate)
        # The kernel does `v = momentum v + g; w = w - step v`, or nothing with these: 1, 0 and 0.
        step, scale = (rate, 1.0) if self.momentum_style == "torch" else (-1.0, -rate)
        decay = scale * self.l2_penalty
        scalars = [tf.convert_to_tensor(x, rate.dtype) for x in (step, scale, self.momentum, decay)]
        if self.reduces_gradients:  # before they are tested
            grads = sum_over_replicas(list(grads))
            is_finite = tf.math.is_finite(tf.linalg.global_norm(grads))
            off = (0.0, 0.0, 1.0, 0.0)
            scalars = [tf.where(is_finite, x, y) for x, y in zip(scalars, off, strict=True)]
            self._iterations.assign_add(tf.cast(is_finite, "int64") - 1)  # `apply` adds 1
        super()._backend_update_step(grads, trainable_variables, scalars)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Any) -> None:
        """Updates a `tf.Variable`; `learning_rate` is what `_backend_update_step` makes of it."""
        index = self._get_variable_index(variable)
        step, scale, momentum, decay = (tf.cast(x, variable.dtype) for x in learning_rate)
        factor = self.rate_factors[index]
        if factor != 1.0 and self.momentum_style == "torch":
            step *= factor
        elif factor != 1.0:
            scale, decay = scale * factor, decay * factor
        gradient = tf.cast(gradient, variable.dtype)
        if self.reduces_gradients or self.momentum_style == "keras":
            gradient = tf.math.multiply_no_nan(gradient, scale)
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
            "backbone_lr_factor": self.backbone_lr_factor,
            "depth_factors": self.depth_factors,
        }


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW; what decays and how fast the backbone learns follow the rules of `SGD`.

    Args:
        learning_rate: float or schedule.
        weight_decay: float; each step takes the learning rate times this off a weight.
        reduces_gradients: bool; under `tf.distribute`, False says that the caller has summed the
            gradients over the replicas.
        backbone_lr_factor, depth_factors: see `SGD`.
        **kwargs: `beta_1`, `beta_2`, ...

    Reference: Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.0001,
        weight_decay: float = 0.05,
        reduces_gradients: bool = True,
        backbone_lr_factor: float = 1.0,
        depth_factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.reduces_gradients = reduces_gradients
        self.backbone_lr_factor = backbone_lr_factor
        self.depth_factors = depth_factors

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.decays = [decays(variable) for variable in variables]
        self.rate_factors = variable_factors(variables, self)

    def _apply_weight_decay(self, variables: list) -> None:
        pass  # `update_step` does, with the rate of the variable

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = tf.cast(learning_rate, variable.dtype) * self.rate_factors[index]
        if self.decays[index]:
            variable.assign_sub(variable * (self.weight_decay * rate))
        super().update_step(gradient, variable, rate)

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        if self.reduces_gradients:
            return super()._all_reduce_sum_gradients(grads_and_vars)
        return grads_and_vars

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "reduces_gradients": self.reduces_gradients,
            "backbone_lr_factor": self.backbone_lr_factor,
            "depth_factors": self.depth_factors,
        }


def build_optimizer(
    config: OptimizerConfig, num_steps: int | None = None, backbone: Any = None
) -> SGD | AdamW:
    """Returns the optimizer of an `OptimizerConfig`, for gradients summed over replicas and finite.

    Args:
        config: `OptimizerConfig`.
        num_steps, backbone: see `build_schedule`, `rate_factors`.
    """
    schedule = build_schedule(config, num_steps)
    options: dict[str, Any] = {
        "weight_decay": config.weight_decay,
        "reduces_gradients": False,
        "backbone_lr_factor": config.backbone_lr_factor,
        "depth_factors": rate_factors(backbone, config.layer_decay),
    }
    if config.algorithm == "adamw":
        return AdamW(schedule, beta_1=config.momentum, epsilon=1e-8, **options)
    return SGD(schedule, config.momentum, momentum_style=config.momentum_style, **options)


def last_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the learning rate of the last step that changed anything; of the first before it.

    Args:
        optimizer: one of `build_optimizer`, whose count lacks the steps that were skipped.
    """
    count = int(keras.ops.convert_to_numpy(optimizer.iterations))
    return float(optimizer._learning_rate(max(count - 1, 0)))
