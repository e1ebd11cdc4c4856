"""The box head of Fast R-CNN on an FPN, and its detections."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.models.fpn import XAVIER
from tf_panoptic_fpn.ops.boxes import BOX_DELTA_WEIGHTS, clip_boxes, decode_boxes
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.nms import nms
from tf_panoptic_fpn.ops.precision import full_dtype, full_precision
from tf_panoptic_fpn.ops.roi_align import roi_align
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

NO_SCORE = float("-inf")
# Candidates that enter the class-wise NMS, for each proposal on average. Softmax scores above .05
# leave at most 19 a proposal, but only the best hundred detections come out.
CANDIDATES_PER_PROPOSAL = 4


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class BoxHead(keras.layers.Layer):
    """RoIAlign 7x7, two fully connected layers, class logits and class-specific box deltas.

    Args:
        num_classes: int K, thing classes; class K, the last, is background.
        units: int, width of the two layers.
        sampling_ratio: int, RoIAlign samples a bin and axis; 0 adapts to the roi's size.

    Call: (features "P2".."P5", rois float32 `[B, R, 4]`) -> class logits `[B, R, K + 1]` and
    deltas `[B, R, K, 4]` (dy, dx, dh, dw).
    """

    def __init__(
        self, num_classes: int, units: int = 1024, sampling_ratio: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # the rois stay as they are
        self.num_classes = num_classes
        self.units = units
        self.sampling_ratio = sampling_ratio
        for name in ("fc1", "fc2"):
            initializer = keras.initializers.VarianceScaling(**XAVIER)
            layer = keras.layers.Dense(
                units,
                activation="relu",
                kernel_initializer=initializer,
                dtype=self.dtype_policy,
                name=name,
            )
            setattr(self, name, layer)
        options = {"dtype": full_dtype(self.compute_dtype)}
        self.classes = keras.layers.Dense(
            num_classes + 1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="classes",
            **options,
        )
        self.deltas = keras.layers.Dense(
            4 * num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            name="deltas",
            **options,
        )

    def build(self, features_shape: dict[str, Shape], rois_shape: Shape | None = None) -> None:
        self.fc1.build((None, 7 * 7 * features_shape["P2"][-1]))
        for layer in (self.fc2, self.classes, self.deltas):
            layer.build((None, self.units))

    def call(self, features: Tensors, rois: Tensor) -> tuple[Tensor, Tensor]:
        batch, count = ops.shape(rois)[:2]
        x = roi_align(features, rois, 7, self.sampling_ratio)
        x = ops.reshape(x, (batch, count, 7 * 7 * features["P2"].shape[-1]))
        x = self.fc2(self.fc1(x))
        return self.classes(x), ops.reshape(self.deltas(x), (batch, count, self.num_classes, 4))

    def compute_output_spec(
        self, features: Tensors, rois: Tensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        batch, count = rois.shape[:2]
        dtype = full_dtype(self.compute_dtype)
        return (
            keras.KerasTensor((batch, count, self.num_classes + 1), dtype=dtype),
            keras.KerasTensor((batch, count, self.num_classes, 4), dtype=dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "units": self.units,
            "sampling_ratio": self.sampling_ratio,
        }


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class Detections(keras.layers.Layer):
    """Box head output -> detections: decode, clip, score threshold, NMS in each class, top D.

    Args:
        score_threshold: float, only scores above it are detections.
        nms_iou: float, a box is suppressed by a better one of its class above this IoU.
        max_detections: int D.

    Call: (rois `[B, R, 4]`, roi scores `[B, R]` (-inf is padding), class logits `[B, R, K + 1]`,
    deltas `[B, R, K, 4]`, image_sizes int32 `[B, 2]`) -> boxes float32 `[B, D, 4]`, scores float32
    `[B, D]`, classes int32 `[B, D]` (-1 is padding), num_detections int32 `[B]`.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections

    def call(
        self,
        rois: Tensor,
        roi_scores: Tensor,
        class_logits: Tensor,
        deltas: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, count, num_classes = ops.shape(rois)[0], rois.shape[1], deltas.shape[2]
        total = count * num_classes
        probs = ops.softmax(full_precision(class_logits), axis=-1)[:, :, :-1]
        usable = (probs > self.score_threshold) & (roi_scores[:, :, None] > NO_SCORE)
        scores = ops.reshape(ops.where(usable, probs, NO_SCORE), (batch, total))
        scores, indices = ops.top_k(scores, min(total, CANDIDATES_PER_PROPOSAL * count))
        classes = ops.cast(indices % num_classes, "int32")
        deltas = ops.reshape(full_precision(deltas), (batch, total, 4))
        deltas = take_rows(deltas, indices)
        boxes = take_rows(rois, indices // num_classes)
        boxes = clip_boxes(decode_boxes(deltas, boxes, BOX_DELTA_WEIGHTS), image_sizes)
        keep = nms(boxes, scores, self.nms_iou, groups=classes)
        scores = ops.where(keep, scores, NO_SCORE)
        missing = max(self.max_detections - scores.shape[1], 0)
        scores = ops.pad(scores, ((0, 0), (0, missing)), constant_values=NO_SCORE)
        scores, indices = ops.top_k(scores, self.max_detections)
        indices = ops.minimum(indices, classes.shape[1] - 1)
        valid = scores > NO_SCORE
        boxes = take_rows(boxes, indices)
        return (
            ops.where(valid[:, :, None], boxes, 0.0),
            ops.where(valid, scores, 0.0),
            ops.where(valid, take_rows(classes, indices), -1),
            ops.sum(ops.cast(valid, "int32"), axis=1),
        )

    def compute_output_spec(
        self,
        rois: Tensor,
        roi_scores: Tensor,
        class_logits: Tensor,
        deltas: Tensor,
        image_sizes: Tensor,
    ) -> tuple[keras.KerasTensor, ...]:
        batch, count, dtype = rois.shape[0], self.max_detections, full_dtype(deltas.dtype)
        return (
            keras.KerasTensor((batch, count, 4), dtype=dtype),
            keras.KerasTensor((batch, count), dtype=dtype),
            keras.KerasTensor((batch, count), dtype="int32"),
            keras.KerasTensor((batch,), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "nms_iou": self.nms_iou,
            "max_detections": self.max_detections,
        }
