"""Panoptic FPN as one Keras model (Kirillov et al., arXiv:1901.02446)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.models import losses
from tf_panoptic_fpn.models.assembly import ROI_LEVELS, TASKS, connect, detect, make_layers
from tf_panoptic_fpn.models.cascade import cascade_losses
from tf_panoptic_fpn.models.fit import FitModel
from tf_panoptic_fpn.models.fpn import branch_features
from tf_panoptic_fpn.models.losses import Terms
from tf_panoptic_fpn.models.targets import anchor_targets, ground_truth, roi_targets, trim_padding
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor, Tensors

LOSS_NAMES = {
    "instance": ("rpn_class", "rpn_box", "class", "box", "mask"),
    "semantic": ("semantic",),
}
FOREGROUND = ("foreground_anchors", "foreground_rois")  # positive examples among those sampled
Dense = dict[str, Any]  # see `PanopticFPN.dense_outputs`


def loss_names(tasks: Sequence[str], num_stages: int = 0) -> list[str]:
    """Names of a model's losses; a cascade has those of the box head for each stage."""
    stages = [f"{name}_stage{i}" for i in range(num_stages) for name in ("class", "box")]
    names = [name for task in tasks for name in LOSS_NAMES[task]]
    if stages and "class" in names:
        start = names.index("class")
        names[start : start + 2] = stages
    return names


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class PanopticFPN(FitModel):
    """Instance and semantic segmentation from one feature pyramid.

    Call it on a batch of images, `[B, H, W, 3]` RGB 0-255, or on a dict with `images` and
    `image_sizes` int32 `[B, 2]`, the valid top-left part of each canvas. It returns a dict
    (`tf_panoptic_fpn.schema`): `boxes` float32 `[B, D, 4]` (yxyx, canvas pixels), `scores` float32
    and `classes` int32 `[B, D]`, `num_detections` int32 `[B]`, `mask_probs` float32
    `[B, D, 28, 28]` and `semantic_logits` `[B, H/4, W/4, S]` with H and W rounded up to 32. A
    model of one task lacks the keys, and the layers, of the other.

    `compile(optimizer)` and `fit` train it on batches of the training pipeline, dicts that hold
    the images and the ground truth: `batch` alone or `(batch, batch)`.

    Under a half-precision dtype policy, boxes, scores, losses and logits stay float32; under
    "float64" everything is float64.

    Args:
        num_thing_classes: int K.
        num_stuff_classes: int.
        tasks: "instance" (alone: Mask R-CNN), "semantic" (alone: Semantic FPN) or both.
        backbone: "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", a ResNeXt such as
            "resnext101_32x8d" (32 groups, 8 channels each in res2), "keras_applications/NAME",
            "keras_hub/PRESET_OR_FOLDER", a layer that maps a normalised image to a dict
            "C2".."C5", or a model that `backbones.make_backbone` makes one of.
        norm: "frozen_affine", "group_norm" or "sync_batch_norm", of a backbone given by name.
        freeze_at: int, stages of the backbone that are not trained: 1 the stem, 2 res2 too, ...
        stride_in_1x1: bool, whether a ResNet's bottlenecks stride in the first 1x1 convolution; a
            ResNeXt's stride in the 3x3.
        norm_groups: int, groups of every group norm.
        deformable_stages: of 2..5, the stages whose bottlenecks have a deformable 3x3.
        deformable_groups: int, groups of channels with offsets of their own.
        deformable_modulated: bool, whether a mask weighs each tap of theirs (version 2).
        drop_path: float, rate of the stochastic depth of the last block, of backbones that have it.
        fpn_channels: int, channels of P2..P6.
        fpn_groups: int, 1, or 2 to give the instance branch the first half of the channels and the
            semantic branch the second, each from a pyramid of its own.
        fpn_norm: "none" or "group_norm".
        semantic_channels: int, width of the semantic branch.
        semantic_design: "staged" or "two_conv", see `SemanticHead`.
        semantic_fuse: "sum" or "concat" of the levels.
        semantic_things: what the semantic branch predicts beside stuff: "other", class 0 for every
            thing; or "all", the classes 0..K-1 for each. The merge discards either.
        box_head: "two_fc" or "four_conv_one_fc", see `BoxHead`.
        box_head_units: int, width of the box head's fully connected layers.
        box_head_channels: int, width of its convolutions.
        box_head_norm: "none" or "group_norm", of its convolutions.
        class_agnostic_boxes: bool, whether all classes have the same box deltas.
        cascade_ious: IoU from which a roi is foreground, for each stage of a cascade of box heads,
            such as (.5, .6, .7); empty for one head.
        cascade_delta_weights: 4 floats a stage, factors of the deltas (dy, dx, dh, dw); empty
            for 1, 2, 3, ... times (10, 10, 5, 5).
        mask_head_channels: int, width of the mask head.
        mask_head_convolutions: int, its 3x3 convolutions.
        mask_head_norm: "none" or "group_norm", of these.
        separable_heads: bool, whether the 3x3 of pyramid, RPN, semantic branch and mask head are
            depthwise ones and 1x1.
        anchor_sizes: 5 sizes in pixels, for P2..P6.
        anchor_ratios: heights / widths of the anchors.
        rpn_top_k_train: proposals (before NMS a level, after NMS an image) in training.
        rpn_top_k_test: the same at test.
        rpn_nms_iou: IoU above which a better proposal suppresses another.
        rpn_samples: anchors that a training image's loss samples.
        rois_per_image: int T, rois that a training image's loss samples.
        roi_sampling_ratio: RoIAlign samples a bin and axis; 0 adapts to the roi's size.
        score_threshold: float, only scores above it are detections.
        nms_iou: IoU above which a better detection suppresses another of its class.
        max_detections: int D.
        pixel_mean: RGB, subtracted from pixels of 0 to 255; None for the backbone's own.
        pixel_std: RGB, by which they are divided; None for the backbone's own.
        lambda_instance: weight of the box and mask heads' losses.
        lambda_semantic: weight of the semantic loss.
        **kwargs: `name`; and `dtype`, the policy of every layer, by default the global one.

    Raises:
        ValueError: if an argument that names a choice has another value, `fpn_groups` is 2 with a
            single task, or a cascade is not class-agnostic or lacks weights for a stage.
    """

    def __init__(
        self,
        num_thing_classes: int = 80,
        num_stuff_classes: int = 53,
        tasks: Sequence[str] = TASKS,
        backbone: str | keras.layers.Layer = "resnet50",
        norm: str = "frozen_affine",
        freeze_at: int = 2,
        stride_in_1x1: bool = True,
        norm_groups: int = 32,
        deformable_stages: Sequence[int] = (),
        deformable_groups: int = 1,
        deformable_modulated: bool = False,
        drop_path: float = 0.0,
        fpn_channels: int = 256,
        fpn_groups: int = 1,
        fpn_norm: str = "none",
        semantic_channels: int = 128,
        semantic_design: str = "staged",
        semantic_fuse: str = "sum",
        semantic_things: str = "other",
        box_head: str = "two_fc",
        box_head_units: int = 1024,
        box_head_channels: int = 256,
        box_head_norm: str = "none",
        class_agnostic_boxes: bool = False,
        cascade_ious: Sequence[float] = (),
        cascade_delta_weights: Sequence[Sequence[float]] = (),
        mask_head_channels: int = 256,
        mask_head_convolutions: int = 4,
        mask_head_norm: str = "none",
        separable_heads: bool = False,
        anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0, 256.0, 512.0),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_top_k_train: Sequence[int] = (2000, 1000),
        rpn_top_k_test: Sequence[int] = (1000, 1000),
        rpn_nms_iou: float = 0.7,
        rpn_samples: int = 256,
        rois_per_image: int = 512,
        roi_sampling_ratio: int = 0,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        lambda_instance: float = 1.0,
        lambda_semantic: float = 0.5,
        **kwargs: Any,
    ) -> None:
        config = dict(locals())
        for name in ("self", "kwargs", "__class__"):
            del config[name]

        # === Layers ===
        policy = keras.dtype_policies.get(kwargs.pop("dtype", None) or keras.config.dtype_policy())
        layers = make_layers(config, policy)
        if not isinstance(backbone, str):
            config["backbone"] = layers["backbone"]
        config["pixel_mean"], config["pixel_std"] = (
            layers["normalize"].mean,
            layers["normalize"].std,
        )

        # === Functional model ===
        inputs, outputs = connect(layers, config, policy)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self.dtype_policy = policy
        self.config = config
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.seed_generator = keras.random.SeedGenerator(0)
        self.loss_trackers = [
            keras.metrics.Mean(name=name) for name in loss_names(tasks, len(cascade_ious))
        ]

    @property
    def input_spec(self) -> None:
        return None  # Keras would admit the dict alone, not a batch of images

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> dict[str, Any]:
        if not isinstance(inputs, dict):
            inputs = {schema.IMAGES: inputs}
        images, image_sizes = inputs[schema.IMAGES], inputs.get(schema.IMAGE_SIZES)
        if training:
            return self.dense_outputs(images, image_sizes)
        inputs = {schema.IMAGES: images, schema.IMAGE_SIZES: image_sizes}
        return super().call(inputs, training=training, mask=mask)

    def dense_outputs(
        self, images: Tensor, image_sizes: Tensor | None = None, training: bool = True
    ) -> Dense:
        """Everything that does not depend on proposals; what `call(training=True)` returns.

        Args:
            images: `[B, H, W, 3]`, RGB 0-255.
            image_sizes: int32 `[B, 2]`, or None for the whole canvas.
            training: bool, for the backbone's normalisation.

        Returns:
            Dict: `features` (dict "P2".."P6", those of the instance branch) and `image_sizes`;
            with the task "instance", `rpn_logits` and `rpn_deltas` (lists, an entry a level) and
            `anchors` of all levels; with "semantic", `semantic_logits`.
        """
        x, image_sizes = self.normalize(images, image_sizes)
        pyramid = self.fpn(self.backbone(x, training=training))
        features, semantic_features = branch_features(pyramid, self.config["fpn_groups"])
        dense = {"features": features, "image_sizes": image_sizes}
        if self.rpn_head is not None:
            dense["rpn_logits"], dense["rpn_deltas"] = self.rpn_head(features)
            dense["anchors"] = self.proposals.anchors(features)
        if self.semantic_head is not None:
            dense["semantic_logits"] = self.semantic_head(semantic_features)
        return dense

    def panoptic_outputs(
        self, images: Tensor, image_sizes: Tensor, score_threshold: Tensor
    ) -> Tensors:
        """What `call` returns at inference, with the masks alone that a merge can use.

        Args:
            images: `[B, H, W, 3]`, RGB 0-255.
            image_sizes: int32 `[B, 2]`.
            score_threshold: float; of detections below it `mask_probs` mean nothing.
        """
        if self.mask_head is None:
            return self({schema.IMAGES: images, schema.IMAGE_SIZES: image_sizes}, training=False)
        dense = self.dense_outputs(images, image_sizes, training=False)
        features = dense["features"]
        logits, deltas = dense["rpn_logits"], dense["rpn_deltas"]
        rois, roi_scores, _ = self.proposals(features, logits, deltas, dense["image_sizes"])
        detections = self.detect(features, rois, roi_scores, dense["image_sizes"])
        boxes, scores, classes, count = detections
        usable = ops.sum(ops.cast(scores >= score_threshold, "int32"), axis=1)
        features = {name: features[name] for name in ROI_LEVELS}
        masks = self.mask_head(features, boxes, classes, ops.minimum(usable, count))
        names = (schema.BOXES, schema.SCORES, schema.CLASSES, schema.NUM_DETECTIONS)
        outputs = dict(zip(names, detections, strict=True))
        outputs[schema.MASK_PROBS] = ops.sigmoid(masks)
        if self.semantic_head is not None:
            outputs[schema.SEMANTIC_LOGITS] = dense["semantic_logits"]
        return outputs

    def detect(
        self, features: Tensors, rois: Tensor, roi_scores: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections of proposals, through the box head or the cascade; see `Detections`.

        Args:
            features: those of the instance branch.
            rois: float32 `[B, R, 4]`.
            roi_scores: float32 `[B, R]`; -inf is padding.
            image_sizes: int32 `[B, 2]`.
        """
        features = {name: features[name] for name in ROI_LEVELS}
        return detect(self.box_head, self.detections, features, rois, roi_scores, image_sizes)

    def loss_terms(self, dense: Dense, batch: Tensors, tasks: Sequence[str] | None = None) -> Terms:
        """Assigns and samples targets and returns every loss as (sum, count).

        Args:
            dense: what `dense_outputs` returned for the batch.
            batch: dict of `schema`, the training pipeline's; IMAGE_SEEDS may be missing.
            tasks: the tasks whose losses are wanted; by default the model's.

        Returns:
            Dict of (sum, count) for `losses.weighted_losses`. With the instance branch `dense` has
            the numbers of its positive examples then, `foreground_anchors` and `foreground_rois`.
        """
        tasks = self.config["tasks"] if tasks is None else tasks
        terms = {}
        if "instance" in tasks:
            terms.update(self._instance_loss_terms(dense, batch))
        if "semantic" in tasks:
            logits, labels = dense["semantic_logits"], batch[schema.SEMANTIC]
            weights = self.class_weights.semantic if self.class_weights else None
            terms.update(losses.upsampled_semantic_loss(logits, labels, weights))
        return terms

    def _instance_loss_terms(self, dense: Dense, batch: Tensors) -> Terms:
        if schema.IMAGE_SEEDS not in batch:
            count = sides(batch[schema.GT_BOXES])[0]
            seeds = keras.random.randint((count,), 0, 2**30, seed=self.seed_generator)
            batch = {**batch, schema.IMAGE_SEEDS: seeds}
        batch = trim_padding(batch)
        labels, matched_boxes = anchor_targets(dense["anchors"], batch, self.config["rpn_samples"])
        rois, scores, anchor_indices = self.proposals(
            dense["features"],
            dense["rpn_logits"],
            dense["rpn_deltas"],
            dense["image_sizes"],
            training=True,
            anchors=dense["anchors"],
        )
        targets = roi_targets(
            rois,
            scores,
            anchor_indices,
            batch,
            self.config["rois_per_image"],
            self.config["num_thing_classes"],
            *self.config["cascade_ious"][:1],
        )
        if self.config["cascade_ious"]:
            targets.update(ground_truth(batch, rois.dtype), image_sizes=dense["image_sizes"])
        for name, is_foreground in zip(
            FOREGROUND, (labels == 1, targets["is_foreground"]), strict=True
        ):
            dense[name] = ops.sum(ops.cast(is_foreground, "float32"))
        return {
            **self.rpn_loss_terms(dense, labels, matched_boxes),
            **self.roi_loss_terms(dense["features"], targets),
        }

    def rpn_loss_terms(self, dense: Dense, labels: Tensor, matched_boxes: Tensor) -> Terms:
        """The RPN's losses for sampled labels, see `targets.anchor_targets`."""
        return losses.rpn_losses(
            ops.concatenate(dense["rpn_logits"], axis=1),
            ops.concatenate(dense["rpn_deltas"], axis=1),
            labels,
            matched_boxes,
            dense["anchors"],
            self.config["rpn_samples"],
        )

    def roi_loss_terms(self, features: Tensors, targets: Tensors) -> Terms:
        """The heads' losses for sampled rois, see `targets.roi_targets`."""
        features = {name: features[name] for name in ROI_LEVELS}
        rois, classes = targets["rois"], targets["classes"]
        is_foreground = targets["is_foreground"]
        slots = is_foreground.shape[1]
        mask_logits = self.mask_head(
            features,
            rois[:, :slots],
            # Background has no mask; its class, K, stands for any.
            ops.where(is_foreground, classes[:, :slots], 0),
            ops.sum(ops.cast(is_foreground, "int32"), axis=1),
            training=True,
        )
        return {
            **self._box_loss_terms(features, targets),
            **losses.mask_loss(mask_logits, targets["masks"], is_foreground),
        }

    def _box_loss_terms(self, features: Tensors, targets: Tensors) -> Terms:
        class_weights = self.class_weights.things if self.class_weights else None
        if self.config["cascade_ious"]:
            return cascade_losses(self.box_head, features, targets, class_weights)
        class_logits, deltas = self.box_head(features, targets["rois"])
        return losses.box_losses(
            class_logits,
            deltas,
            targets["rois"],
            targets["classes"],
            targets["matched_boxes"],
            targets["is_valid"],
            class_weights,
        )

    def weighted_losses(self, terms: Terms) -> Tensors:
        """`losses.weighted_losses` with this model's lambdas."""
        return losses.weighted_losses(
            terms, self.config["lambda_instance"], self.config["lambda_semantic"]
        )

    def get_config(self) -> dict[str, Any]:
        backbone = self.config["backbone"]
        if not isinstance(backbone, str) or "/" in backbone:
            # Whole, as the files that a name stands for may not be there.
            backbone = keras.saving.serialize_keras_object(self.backbone)
        dtype = keras.dtype_policies.serialize(self.dtype_policy)
        return {**self.config, "backbone": backbone, "name": self.name, "dtype": dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "PanopticFPN":
        config = dict(config)
        if not isinstance(config["backbone"], str):
            config["backbone"] = keras.saving.deserialize_keras_object(
                config["backbone"], custom_objects=custom_objects
            )
        return cls(**config)
