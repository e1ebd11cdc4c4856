"""Prediction from several sizes of an image, each also mirrored."""

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig, TTAConfig
from tf_panoptic_fpn.inference.merge import Thresholds, balance_classes
from tf_panoptic_fpn.inference.predictor import Predictor, network_size
from tf_panoptic_fpn.inference.semantic_map import resized_logits
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.ops.boxes import clip_boxes, scale_boxes
from tf_panoptic_fpn.ops.nms import nms

NO_SCORE = float("-inf")


class View(typing.NamedTuple):
    """One size of an image, mirrored or not: what the model makes of it before its heads."""

    dense: dict
    size: tf.Tensor
    is_flipped: bool


class AugmentedPredictor(Predictor):
    """A `Predictor` that looks at an image several times.

    - Semantic: the softmax of each view at the size of the image, averaged.
    - Boxes: the detections of all views, thinned by the model's class-wise NMS to its number.
    - Masks: the mask head reads the thinned boxes in each view; its probabilities are averaged.

    Args:
        model, categories, merge, split, class_shares: as in `Predictor`; the split is not read.
        tta: `TTAConfig`.

    Reference: `GeneralizedRCNNWithTTA` of detectron2, whose rules these are for boxes and masks.
    """

    def __init__(
        self,
        model: PanopticFPN,
        categories: CategoryTable,
        merge: MergeConfig,
        split: SplitConfig,
        tta: TTAConfig,
        class_shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, categories, merge, split, class_shares)
        self.tta = tta

    def predict_images(
        self, images: tf.Tensor, thresholds: Thresholds | None = None
    ) -> dict[str, Any]:
        return tf.map_fn(
            lambda image: self._predict_image(image, thresholds),
            images,
            fn_output_signature=self.merged_signature(),
        )

    def _predict_image(self, image: tf.Tensor, thresholds: Thresholds | None) -> dict[str, Any]:
        original = tf.shape(image)[:2]
        views = list(self._views(image, original))
        instances = self._instances_of_views(views, original)
        return self._merge_image(self._semantic_of_views(views, original), instances, thresholds)

    def _views(self, image: tf.Tensor, original: tf.Tensor) -> Iterator[View]:
        for short_side in self.tta.short_sides:
            size = network_size(original, short_side, self.tta.max_long_side)
            x = self.resize(image[None], size)
            for is_flipped in (False, True) if self.tta.flip else (False,):
                pixels = tf.reverse(x, [2]) if is_flipped else x
                dense = self.model.dense_outputs(pixels, size[None], training=False)
                yield View(dense, size, is_flipped)

    def _semantic_of_views(self, views: Sequence[View], original: tf.Tensor) -> tf.Tensor:
        """Int32 `[H0, W0]`, the class of the highest mean probability."""
        if "semantic" not in self.tasks:
            return tf.zeros(original, tf.int32)
        probs = []
        for view in views:
            logits = view.dense[schema.SEMANTIC_LOGITS][0]
            view_probs = tf.nn.softmax(resized_logits(logits, view.size, original))
            probs.append(tf.reverse(view_probs, [1]) if view.is_flipped else view_probs)
        mean = tf.math.log(tf.add_n(probs) / len(probs))
        if self.class_shares is not None:
            mean = balance_classes(mean, self.class_shares)
        return tf.argmax(mean, axis=-1, output_type=tf.int32)

    def _instances_of_views(
        self, views: Sequence[View], original: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The detections of one image, in its pixels; padding alone without the task."""
        if "instance" not in self.tasks:
            return self._instances({}, views[0].size, original)
        detected = [self._detect(view, original) for view in views]
        boxes, scores, classes = (tf.concat(parts, axis=1) for parts in zip(*detected, strict=True))
        keep = nms(boxes, scores, self.model.config["nms_iou"], groups=classes)
        scores = tf.where(keep, scores, NO_SCORE)
        scores, best = tf.math.top_k(scores[0], self.model.config["max_detections"])
        valid = scores > NO_SCORE
        boxes = tf.where(valid[:, None], tf.gather(boxes[0], best), 0.0)
        classes = tf.where(valid, tf.gather(classes[0], best), -1)
        count = tf.reduce_sum(tf.cast(valid, tf.int32))
        return {
            schema.BOXES: boxes,
            schema.SCORES: tf.where(valid, scores, 0.0),
            schema.CLASSES: classes,
            schema.MASK_PROBS: self._mean_masks(views, original, boxes, classes, count),
            schema.NUM_DETECTIONS: count,
        }

    def _detect(self, view: View, original: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Boxes `[1, D, 4]` in pixels of the image, scores (-inf is padding) and classes."""
        model, dense = self.model, view.dense
        sizes = view.size[None]
        rois, roi_scores, _ = model.proposals(
            dense["features"], dense["rpn_logits"], dense["rpn_deltas"], sizes
        )
        boxes, scores, classes, _ = model.detect(dense["features"], rois, roi_scores, sizes)
        boxes = clip_boxes(scale_boxes(boxes, _scale(view.size, original)), original)
        if view.is_flipped:
            boxes = _flip_boxes(boxes, original[1])
        return boxes, tf.where(classes >= 0, scores, NO_SCORE), classes

    def _mean_masks(
        self,
        views: Sequence[View],
        original: tf.Tensor,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        count: tf.Tensor,
    ) -> tf.Tensor:
        """Mask probabilities `[D, 28, 28]`, the mean over the views."""
        probs = []
        for view in views:
            view_boxes = _flip_boxes(boxes, original[1]) if view.is_flipped else boxes
            view_boxes = scale_boxes(view_boxes, _scale(original, view.size))
            logits = self.model.mask_head(
                _roi_features(view.dense), view_boxes[None], classes[None], count[None]
            )
            view_probs = tf.sigmoid(tf.cast(logits[0], tf.float32))
            probs.append(tf.reverse(view_probs, [2]) if view.is_flipped else view_probs)
        return tf.add_n(probs) / len(probs)


def _roi_features(dense: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    return {name: dense["features"][name] for name in ("P2", "P3", "P4", "P5")}


def _scale(size: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Factors of y and x from pixels of an image of `size` to those of one of the size `other`."""
    return tf.cast(other, tf.float32) / tf.cast(size, tf.float32)


def _flip_boxes(boxes: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    top, left, bottom, right = tf.unstack(boxes, axis=-1)
    width = tf.cast(width, boxes.dtype)
    return tf.stack([top, width - right, bottom, width - left], axis=-1)
