"""What `compile`, `fit` and `evaluate` of a `PanopticFPN` do."""

from typing import Any

import keras

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.models.losses import ClassWeights
from tf_panoptic_fpn.ops.replicas import num_replicas, sum_over_replicas
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor, Tensors

OWN_LOSSES = ("loss", "loss_weights", "metrics", "weighted_metrics")


class FitModel(keras.Model):
    """A model with losses of its own, which `fit` takes from the training pipeline's batches.

    A subclass has `dense_outputs`, `loss_terms`, `weighted_losses` and `loss_trackers`, a metric
    for each loss. `class_weights`, not saved with the model, weighs rare classes.
    """

    class_weights: ClassWeights | None = None

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: None = None,
        jit_compile: bool = False,
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, without XLA unless asked for: it recompiles for each canvas.

        Raises:
            ValueError: if losses or metrics are given; those of the model are the only ones.
        """
        for name in OWN_LOSSES:
            value = loss if name == "loss" else kwargs.get(name)
            if value is not None:
                raise ValueError(
                    f"The model has losses of its own, `{name}` must be None. Received: {value!r}"
                )
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was, with variables for the optimizer's state.

        Called by `keras.saving.load_model`.
        """
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Tensors | None = None,
        y_pred: Any = None,
        sample_weight: None = None,
        training: bool = True,
    ) -> Tensor:
        """The total loss, for `fit` and `evaluate`.

        Args:
            x: the images, or a dict with them: what the model is called on.
            y: dict, the training pipeline's batch; None if `x` is that.
            y_pred: what `call` returned.
            sample_weight: None.
            training: bool.

        Returns:
            Float scalar. Under `tf.distribute`, the replicas' add up to the loss of the global
            batch, so that its gradient is that of the sum.

        Raises:
            ValueError: if `sample_weight` is given, or nothing holds the ground truth.
        """
        if sample_weight is not None:
            raise ValueError(
                "The model's losses take no `sample_weight`; `gt_classes` -1 leaves "
                "an instance out, -1 in `semantic` a pixel."
            )
        batch = x if y is None else y
        if not isinstance(batch, dict):
            raise ValueError(
                "`fit` and `evaluate` take the training pipeline's batches, dicts with the ground "
                f"truth: (batch, batch) or batch alone. Received: {type(batch).__name__}"
            )
        if not training:  # `y_pred` is detections
            x = x if isinstance(x, dict) else {schema.IMAGES: x}
            y_pred = self.dense_outputs(x[schema.IMAGES], x.get(schema.IMAGE_SIZES), training=False)
        terms = self.loss_terms(y_pred, batch)
        counts = sum_over_replicas({name: count for name, (_, count) in terms.items()})
        weighted = self.weighted_losses(
            {name: (total, counts[name]) for name, (total, _) in terms.items()}
        )
        num_images = sides(y_pred["image_sizes"])[0]
        for tracker in self.loss_trackers:
            # Keras adds the means of the replicas up as it does those of batches.
            value = weighted[tracker.name] * num_replicas()
            tracker.update_state(value, sample_weight=num_images)
        return sum(weighted.values())

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras would build the model from the sum of the replicas' first batches,
        # and bools cannot be added. All is built but the optimizer.
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
