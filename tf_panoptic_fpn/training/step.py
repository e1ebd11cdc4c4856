"""One training step under `tf.distribute`: losses, gradients, all-reduce, test, clip, apply."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.models.panoptic_fpn import TASKS, PanopticFPN
from tf_panoptic_fpn.ops.replicas import sum_over_replicas

BATCH_STATISTICS = ("moving_mean", "moving_variance")  # of batch norms
TrainStep = Callable[[Any], dict[str, tf.Tensor]]
MODEL_INPUTS = (schema.IMAGES, schema.IMAGE_SIZES)


def make_train_step(
    model: PanopticFPN,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    batch_spec: Any = None,
    clip_norm: float = 0.0,
    jit_compile: bool = False,
    tasks: Sequence[str] | None = None,
) -> TrainStep:
    """Returns the function that trains on one batch.

    Losses are divided by counts over all replicas (labelled pixels, sampled rois, ...), and the
    gradients are summed over the replicas before they are tested and clipped, so that any split of
    a global batch gives the same step. A step whose gradients are not finite changes no weight.

    Args:
        model: a `PanopticFPN`.
        optimizer: an optimizer that does not sum gradients again, e.g. `SGD` with
            `reduces_gradients=False`.
        strategy: the `tf.distribute.Strategy` under which both were made.
        batch_spec: the `element_spec` of the distributed data set; with unknown sides in it, one
            trace serves all canvases. None traces for each.
        clip_norm: float, bound on the gradients' global norm; 0 for none.
        jit_compile: bool, compile losses and gradients with XLA; takes static shapes and a single
            replica.
        tasks: the tasks whose losses are trained on; by default the model's.

    Returns:
        A function: distributed batch (`schema`) -> dict of float32 scalars: each loss by name,
        weighted; `total`, their sum; `gradient_norm`; and `is_finite`, 0 or 1.
    """

    def losses_and_gradients(
        batch: dict[str, tf.Tensor],
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            dense = model({name: batch[name] for name in MODEL_INPUTS}, training=True)
            terms = model.loss_terms(dense, batch, tasks)
            counts = {name: count for name, (_, count) in terms.items()}
            counts = sum_over_replicas(counts)
            losses = model.weighted_losses(
                {name: (total, counts[name]) for name, (total, _) in terms.items()}
            )
            losses["total"] = sum(losses.values())
        variables = [variable.value for variable in model.trainable_variables]
        gradients = tape.gradient(losses["total"], variables)
        return losses, [
            tf.zeros_like(variable) if gradient is None else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    compute = (
        tf.function(losses_and_gradients, jit_compile=True, autograph=False)
        if jit_compile
        else None
    )

    statistics = [v for v in model.non_trainable_variables if v.name in BATCH_STATISTICS]

    def replica_step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        before = [tf.identity(variable.value) for variable in statistics]
        losses, gradients = (compute or losses_and_gradients)(batch)
        losses, gradients = sum_over_replicas(losses), sum_over_replicas(gradients)
        norm = tf.linalg.global_norm(gradients)
        is_finite = tf.math.is_finite(norm)
        scale = clip_norm / tf.maximum(norm, clip_norm) if clip_norm else tf.ones_like(norm)
        # A scale of NaN tells the optimizer, which then leaves all as it is.
        scale = tf.where(is_finite, scale, float("nan"))
        optimizer.apply([gradient * scale for gradient in gradients], model.trainable_variables)
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(tf.where(is_finite, variable.value, value))
        return {**losses, "gradient_norm": norm, "is_finite": tf.cast(is_finite, tf.float32)}

    dynamic = batch_spec is not None and not jit_compile

    @tf.function(input_signature=[batch_spec] if dynamic else None, autograph=False)
    def train_step(batch: Any) -> dict[str, tf.Tensor]:
        replicas = strategy.run(replica_step, args=(batch,))
        # Every replica holds the same sums.
        return {name: strategy.experimental_local_results(v)[0] for name, v in replicas.items()}

    return train_step


def build_train_step(
    model: PanopticFPN,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    batch_spec: Any,
    config: Config,
    start: int,
) -> TrainStep:
    """Returns the train step of a `Config`, which alternates between the tasks if that says so.

    Args:
        model, optimizer, strategy, batch_spec: see `make_train_step`.
        config: `Config`.
        start: int, steps done before.
    """
    alternating = config.train.loss_schedule == "alternating"
    train_steps = [
        make_train_step(
            model,
            optimizer,
            strategy,
            batch_spec,
            config.optimizer.clip_norm,
            config.train.jit_compile,
            tasks,
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
