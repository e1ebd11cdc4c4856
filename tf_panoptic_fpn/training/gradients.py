"""The losses and gradients of a replica's share of a batch, in micro-batches where it is large."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.models.losses import Terms
from tf_panoptic_fpn.models.panoptic_fpn import FOREGROUND, PanopticFPN
from tf_panoptic_fpn.ops.replicas import sum_over_replicas
from tf_panoptic_fpn.schema import Tensors
from tf_panoptic_fpn.training.loss_scale import LossScale

MODEL_INPUTS = (schema.IMAGES, schema.IMAGE_SIZES)
LossesAndGradients = tuple[Tensors, list[tf.Tensor]]


def losses_and_gradients(
    model: PanopticFPN,
    num_replicas: int,
    tasks: Sequence[str] | None = None,
    accumulate: int = 1,
    jit_compile: bool = False,
    loss_scale: LossScale | None = None,
) -> Callable[[Tensors], LossesAndGradients]:
    """Returns the function that differentiates the losses of a batch, for each replica to call.

    Each micro-batch is normalised by its own counts over all replicas (labelled pixels, sampled
    rois, ...), and waits for the gradients of the one before, so that the memory of one is enough.

    Args:
        model: a `PanopticFPN`.
        num_replicas: int.
        tasks: the tasks whose losses are wanted; by default the model's.
        accumulate: int, micro-batches that a replica's batch is split into.
        jit_compile: bool, compile with XLA: all of a micro-batch, or with several replicas, which
            XLA cannot sum over, the forward pass and the backward pass.
        loss_scale: multiplies the gradients, but not the losses that are returned; None for 1.

    Returns:
        A function: batch (`schema`) -> dict of losses by name, weighted, with `total`, their sum,
        and the counts `FOREGROUND`; and the gradient of each trainable variable. Losses and
        gradients are means over the micro-batches, and all are a replica's part of a sum over all.
    """

    def forward(batch: Tensors) -> tuple[Terms, Tensors]:
        dense = model({name: batch[name] for name in MODEL_INPUTS}, training=True)
        terms = model.loss_terms(dense, batch, tasks)
        return terms, {name: dense[name] for name in FOREGROUND if name in dense}

    def of_micro_batch(batch: Tensors) -> LossesAndGradients:
        with tf.GradientTape() as tape:
            terms, foreground = forward(batch)
            counts = {name: tf.stop_gradient(count) for name, (_, count) in terms.items()}
            counts = sum_over_replicas(counts)
            losses = model.weighted_losses(
                {name: (total, counts[name]) for name, (total, _) in terms.items()}
            )
            losses["total"] = sum(losses.values())
            scaled = losses["total"]
            if loss_scale is not None:
                scaled *= tf.cast(loss_scale.value, scaled.dtype)
        variables = [variable.value for variable in model.trainable_variables]
        gradients = tape.gradient(scaled, variables)
        # Of the whole batch, when the micro-batches are averaged.
        dtype = losses["total"].dtype
        counted = {n: accumulate * tf.cast(number, dtype) for n, number in foreground.items()}
        return {**losses, **counted}, [
            tf.zeros_like(variable) if gradient is None else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    if jit_compile or accumulate > 1:  # traced once, called for each micro-batch
        options: dict[str, Any] = {"jit_compile": jit_compile or None, "autograph": False}
        if num_replicas == 1:
            of_micro_batch = tf.function(of_micro_batch, **options)
        else:
            forward = tf.function(forward, **options)

    def of_batch(batch: Tensors) -> LossesAndGradients:
        if accumulate == 1:
            return of_micro_batch(batch)
        parts = {name: tf.split(value, accumulate) for name, value in batch.items()}
        sums: LossesAndGradients | None = None
        for i in range(accumulate):
            with tf.control_dependencies(sums[1] if sums else []):
                values = of_micro_batch({name: part[i] for name, part in parts.items()})
            sums = tf.nest.map_structure(tf.add, sums, values) if sums else values
        return tf.nest.map_structure(lambda value: value / accumulate, sums)

    return of_batch
