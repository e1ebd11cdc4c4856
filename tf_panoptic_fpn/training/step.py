"""One training step under `tf.distribute`: losses, gradients, all-reduce, test, clip, apply."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.backbones.conv_norm import batch_statistics
from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.distribution.replicas import pad_alike
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.assembly import TASKS
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.ops.replicas import sum_over_replicas
from tf_panoptic_fpn.schema import Tensors
from tf_panoptic_fpn.training.gradients import losses_and_gradients
from tf_panoptic_fpn.training.loss_scale import LossScale
from tf_panoptic_fpn.training.weight_average import WeightAverage

TrainStep = Callable[[Any], dict[str, tf.Tensor]]
PIXELS = "canvas_pixels"


def make_train_step(
    model: PanopticFPN,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    batch_spec: Any = None,
    clip_norm: float = 0.0,
    jit_compile: bool = False,
    tasks: Sequence[str] | None = None,
    accumulate: int = 1,
    loss_scale: LossScale | None = None,
    average: WeightAverage | None = None,
) -> TrainStep:
    """Returns the function that trains on one batch.

    Losses are divided by counts over all replicas (labelled pixels, sampled rois, ...), and the
    gradients are summed over the replicas before they are tested and clipped, so that any split of
    a global batch gives the same step. A step whose gradients are not finite changes nothing.

    Args:
        model: a `PanopticFPN`.
        optimizer: an optimizer that does not sum gradients again, e.g. `SGD` with
            `reduces_gradients=False`.
        strategy: the `tf.distribute.Strategy` under which both were made.
        batch_spec: the `element_spec` of the distributed data set; with unknown sides in it, one
            trace serves all canvases. None traces for each.
        clip_norm: float, bound on the gradients' global norm; 0 for none.
        jit_compile: bool, compile losses and gradients with XLA; takes static shapes.
        tasks: the tasks whose losses are trained on; by default the model's.
        accumulate: int, micro-batches that each replica's share of a batch is split into.
        loss_scale: what the loss is multiplied by for the backward pass; None for 1.
        average: follows the weights; or None.

    Returns:
        A function: distributed batch (`schema`) -> dict of float32 scalars: each loss by name,
        weighted; `total`, their sum; the counts `FOREGROUND`; `gradient_norm`; `is_finite`, 0 or 1;
        `canvas_pixels` of the batch.
    """
    num_replicas = strategy.num_replicas_in_sync
    differentiate = losses_and_gradients(
        model, num_replicas, tasks, accumulate, jit_compile, loss_scale
    )
    statistics = batch_statistics(model)

    def replica_gradients(batch: Tensors) -> tuple[Tensors, list[tf.Tensor], list[tf.Tensor]]:
        if strategy.cluster_resolver is not None:
            batch = pad_alike(batch)
        before = [tf.identity(variable.value) for variable in statistics]
        losses, gradients = differentiate(batch)
        losses[PIXELS] = tf.cast(tf.size(batch[schema.IMAGES]) // 3, losses["total"].dtype)
        losses, gradients = sum_over_replicas(losses), sum_over_replicas(gradients)
        norm = tf.linalg.global_norm(gradients)
        factors = []
        if loss_scale is not None:
            factors.append(tf.cast(1.0 / loss_scale.value, norm.dtype))
            norm *= factors[0]
        if clip_norm:
            factors.append(clip_norm / tf.maximum(norm, clip_norm))
        if factors:
            factor = math.prod(factors)
            gradients = [gradient * factor for gradient in gradients]
        is_finite = tf.cast(tf.math.is_finite(norm), tf.float32)
        return {**losses, "gradient_norm": norm, "is_finite": is_finite}, gradients, before

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, model.trainable_variables)

    def undo(before: list[tf.Tensor]) -> None:
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value)

    def after_a_finite_step(gradients: Any) -> None:
        strategy.run(apply, args=(gradients,))
        if average is not None:
            average.update()
        if loss_scale is not None:
            loss_scale.after_a_finite_step()

    def after_a_skipped_step(before: Any) -> None:
        strategy.run(undo, args=(before,))
        if loss_scale is not None:
            loss_scale.after_a_skipped_step()

    dynamic = batch_spec is not None and not jit_compile

    @tf.function(input_signature=[batch_spec] if dynamic else None, autograph=False)
    def train_step(batch: Any) -> dict[str, tf.Tensor]:
        replicas, gradients, before = strategy.run(replica_gradients, args=(batch,))
        # Every replica holds the same sums.
        row = {name: strategy.experimental_local_results(v)[0] for name, v in replicas.items()}
        tf.cond(
            row["is_finite"] > 0,
            lambda: after_a_finite_step(gradients),
            lambda: after_a_skipped_step(before),
        )
        return row

    return train_step


def build_train_step(
    model: PanopticFPN,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    batch_spec: Any,
    config: Config,
    start: int,
    loss_scale: LossScale | None = None,
    average: WeightAverage | None = None,
) -> TrainStep:
    """Returns the train step of a `Config`, which alternates between the tasks if that says so.

    Args:
        model, optimizer, strategy, batch_spec, loss_scale, average: see `make_train_step`.
        config: `Config`.
        start: int, steps done before.

    Raises:
        ConfigError: if the batch cannot be shared out, or XLA not compile what the replicas do.
    """
    settings, num_replicas = config.train, strategy.num_replicas_in_sync
    if settings.batch_size % (num_replicas * settings.accumulate):
        raise ConfigError(
            f"`train.batch_size` must be a multiple of the {num_replicas} replicas x "
            f"train.accumulate ({settings.accumulate}). Received: {settings.batch_size}"
        )
    apart = settings.jit_compile or settings.accumulate > 1
    if config.model.norm == "sync_batch_norm" and apart and num_replicas > 1:
        raise ConfigError(
            "`model.norm` must not be sync_batch_norm with train.jit_compile or train.accumulate "
            f"on several replicas. Received: {config.model.norm!r}"
        )
    alternating = settings.loss_schedule == "alternating"
    train_steps = [
        make_train_step(
            model,
            optimizer,
            strategy,
            batch_spec,
            config.optimizer.clip_norm,
            settings.jit_compile,
            tasks,
            settings.accumulate,
            loss_scale,
            average,
        )
        for tasks in (TASKS if alternating else [config.model.tasks])
    ]
    return alternate_steps(train_steps, start)


def alternate_steps(train_steps: Sequence[TrainStep], start: int) -> TrainStep:
    """Returns a train step that is each of several in turn.

    Args:
        train_steps: list of functions.
        start: int, steps done before; the next is number `start` modulo their count.
    """
    first = start % len(train_steps)
    turns = itertools.cycle([*train_steps[first:], *train_steps[:first]])
    return lambda batch: next(turns)(batch)
