"""Image in, panoptic segmentation out, as one TensorFlow graph."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.data.pillow_resize import resize_images
from tf_panoptic_fpn.formats.images import resized_size
from tf_panoptic_fpn.inference.graph_rewrites import without_rewrites
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.merge import Thresholds, first_instances, merge_outputs
from tf_panoptic_fpn.inference.semantic_map import semantic_map
from tf_panoptic_fpn.models.mask_head import MASK_SIZE
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.ops.boxes import clip_boxes, scale_boxes
from tf_panoptic_fpn.ops.panoptic_merge import no_instances


class Predictor(ImagePredictor):
    """Runs a model on whole images: resize, model, merge at the original size.

    Args:
        model: a `PanopticFPN`.
        categories: `CategoryTable` of the data set it was trained on.
        merge: `MergeConfig`.
        split: `SplitConfig`; its first short side and its long side say how images are resized.
        class_shares: float `[S]`, the share of each semantic class in the training data, or None.
            Given, a pixel's semantic class is the most probable one in relation to its share, see
            `balance_classes`.
        panoptic_only: bool, whether INSTANCES are left out, and the masks that the merge has no use
            for not computed.
    """

    def __init__(
        self,
        model: PanopticFPN,
        categories: CategoryTable,
        merge: MergeConfig,
        split: SplitConfig,
        class_shares: Sequence[float] | None = None,
        panoptic_only: bool = False,
    ) -> None:
        self.model = model
        self.panoptic_only = panoptic_only
        self.categories = categories.with_semantic_things(model.config["semantic_things"])
        self.merge = merge
        self.class_shares = class_shares
        self.short_side = split.short_sides[0]
        self.max_long_side = split.max_long_side
        self.thresholds = Thresholds(
            merge.score_threshold,
            merge.overlap_threshold,
            merge.stuff_area,
            model.config["max_detections"],
        )
        self._trace()

    def _trace(self) -> None:
        # `predict_images`, traced once for all that calls it: prediction and all endpoints.
        self.traced = tf.function(
            self.predict_images,
            input_signature=[
                tf.TensorSpec([None, None, None, 3], tf.uint8),
                Thresholds.specs([]),
            ],
            autograph=False,
        )

    def with_model(self, model: Any) -> "Predictor":
        """The same predictor, of another model with the same outputs."""
        same = copy.copy(self)
        same.model = model
        same._trace()
        return same

    def run(self, images: np.ndarray) -> list[dict]:
        with without_rewrites():
            outputs = self.traced(images, self.thresholds)
        outputs = tf.nest.map_structure(lambda value: value.numpy(), outputs)
        return [
            tf.nest.map_structure(lambda value, row=row: value[row], outputs)
            for row in range(len(images))
        ]

    def predict_images(
        self, images: tf.Tensor, thresholds: Thresholds | None = None
    ) -> dict[str, Any]:
        """The graph for images of one size.

        Args:
            images: uint8 `[B, H0, W0, 3]`, RGB.
            thresholds: `Thresholds` of scalars, or None: the predictor's.

        Returns:
            Dict of tensors with a leading B: the keys of the merge, SEMANTIC_MAP and INSTANCES.
        """
        original = tf.shape(images)[1:3]
        if images.shape[1:3].is_fully_defined():  # XLA wants to know
            height, width = images.shape[1:3]
            new = resized_size(height, width, self.short_side, self.max_long_side)
            size = tf.constant(new, tf.int32)
            x = tf.ensure_shape(self.resize(images, size), [images.shape[0], *new, 3])
        else:
            size = self.network_size(original)
            x = self.resize(images, size)
        sizes = tf.tile(size[None], [tf.shape(images)[0], 1])
        if self.panoptic_only:
            score = (thresholds or self.thresholds).score_threshold
            outputs = self.model.panoptic_outputs(x, sizes, score)
        else:
            outputs = self.model({schema.IMAGES: x, schema.IMAGE_SIZES: sizes}, training=False)
        return self.merge_images(outputs, size, original, thresholds)

    def merge_images(
        self,
        outputs: Mapping[str, tf.Tensor],
        size: tf.Tensor,
        original: tf.Tensor,
        thresholds: Thresholds | None = None,
    ) -> dict[str, Any]:
        """What follows the model: its outputs for images of `size` -> as `predict_images`."""
        return tf.map_fn(
            lambda row: self._merge_image(
                self._semantic_map(row, size, original),
                self._instances(row, size, original),
                thresholds,
            ),
            outputs,
            fn_output_signature=self.merged_signature(),
        )

    @staticmethod
    def resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Pillow's bilinear resizing, antialiased, of a tensor `[B, H, W, 3]`."""
        return resize_images(images, size)

    def network_size(self, original: tf.Tensor) -> tf.Tensor:
        """`formats.images.resized_size` on a tensor: int32 `[2]` -> int32 `[2]`."""
        return network_size(original, self.short_side, self.max_long_side)

    def _merge_image(
        self,
        semantic: tf.Tensor,
        instances: dict[str, tf.Tensor],
        thresholds: Thresholds | None = None,
    ) -> dict[str, Any]:
        """One image's semantic map and detections, both at its size -> its dict."""
        if thresholds is not None:
            instances = first_instances(instances, thresholds.max_detections)
        thresholds = self.thresholds if thresholds is None else thresholds
        merged = merge_outputs(instances, semantic, self.categories, thresholds)
        if "semantic" in self.tasks:
            merged[schema.SEMANTIC_MAP] = semantic
        if self.has_instances:
            merged[schema.INSTANCES] = instances
        return merged

    @property
    def tasks(self) -> Sequence[str]:
        return self.model.config["tasks"]

    @property
    def has_instances(self) -> bool:
        """Whether INSTANCES are returned."""
        return "instance" in self.tasks and not self.panoptic_only

    def _semantic_map(
        self, outputs: Mapping[str, tf.Tensor], size: tf.Tensor, original: tf.Tensor
    ) -> tf.Tensor:
        """Int32 `[H0, W0]`; zeros, where nothing is stuff, without the task."""
        if "semantic" not in self.tasks:
            return tf.zeros(original, tf.int32)
        logits = outputs[schema.SEMANTIC_LOGITS]
        return semantic_map(logits, size, original, self.class_shares)

    def _instances(
        self, outputs: Mapping[str, tf.Tensor], size: tf.Tensor, original: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The detections in pixels of the original image; padding alone without the task."""
        if "instance" not in self.tasks:
            return no_instances(self.model.config["max_detections"])
        scale = tf.cast(original, tf.float32) / tf.cast(size, tf.float32)
        names = (schema.BOXES, schema.SCORES, schema.MASK_PROBS)
        real = {name: tf.cast(outputs[name], tf.float32) for name in names}  # of float64, too
        boxes = clip_boxes(scale_boxes(real[schema.BOXES], scale), original)
        counted = {name: outputs[name] for name in (schema.CLASSES, schema.NUM_DETECTIONS)}
        return {**real, **counted, schema.BOXES: boxes}

    def merged_signature(self) -> dict[str, Any]:
        detections = self.model.config["max_detections"]
        segments = detections + len(self.categories.stuff)
        signature = {
            schema.PANOPTIC_MAP: tf.TensorSpec([None, None], tf.int32),
            schema.CATEGORY_IDS: tf.TensorSpec([segments], tf.int64),
            schema.IS_THING: tf.TensorSpec([segments], tf.bool),
            schema.SCORES: tf.TensorSpec([segments], tf.float32),
            schema.AREAS: tf.TensorSpec([segments], tf.int32),
            schema.BOXES: tf.TensorSpec([segments, 4], tf.float32),
            schema.NUM_SEGMENTS: tf.TensorSpec([], tf.int32),
        }
        if "semantic" in self.tasks:
            signature[schema.SEMANTIC_MAP] = tf.TensorSpec([None, None], tf.int32)
        if self.has_instances:
            mask_shape = [detections, MASK_SIZE, MASK_SIZE]
            signature[schema.INSTANCES] = {
                schema.BOXES: tf.TensorSpec([detections, 4], tf.float32),
                schema.SCORES: tf.TensorSpec([detections], tf.float32),
                schema.CLASSES: tf.TensorSpec([detections], tf.int32),
                schema.MASK_PROBS: tf.TensorSpec(mask_shape, tf.float32),
                schema.NUM_DETECTIONS: tf.TensorSpec([], tf.int32),
            }
        return signature


def network_size(original: tf.Tensor, short_side: int, max_long_side: int) -> tf.Tensor:
    """`formats.images.resized_size` on a tensor: int32 `[2]` -> int32 `[2]`."""
    sides = tf.cast(original, tf.float64)
    scale = tf.minimum(short_side / tf.reduce_min(sides), max_long_side / tf.reduce_max(sides))
    return tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), 1)
