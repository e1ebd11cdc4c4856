"""The box head of Fast R-CNN on an FPN, and its detections."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import conv_relu
from tf_panoptic_fpn.models.fpn import XAVIER
from tf_panoptic_fpn.ops.boxes import BOX_DELTA_WEIGHTS, clip_boxes, decode_boxes
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.gradients import with_gradient
from tf_panoptic_fpn.ops.nms import nms
from tf_panoptic_fpn.ops.precision import full_dtype, full_precision
from tf_panoptic_fpn.ops.roi_align import roi_align
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

NO_SCORE = float("-inf")
# Candidates that enter the class-wise NMS, for each proposal on average. Softmax scores above .05
# leave at most 19 a proposal, but only the best hundred detections come out.
CANDIDATES_PER_PROPOSAL = 4


# Its 3x3 convolutions and fully connected layers.
DESIGNS = {"two_fc": (0, 2), "four_conv_one_fc": (4, 1)}


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class BoxHead(keras.layers.Layer):
    """RoIAlign 7x7, some layers, then class logits and box deltas.

    Args:
        num_classes: int K, thing classes; class K, the last, is background.
        units: int, width of the fully connected layers.
        sampling_ratio: int, RoIAlign samples a bin and axis; 0 adapts to the roi's size.
        design: "two_fc", two fully connected layers; or "four_conv_one_fc", four 3x3 convolutions
            and one of them (Group Normalization, arXiv:1803.08494, section 4.2).
        channels: int, width of the convolutions.
        norm: "none", or "group_norm" after each convolution, which then has no bias.
        norm_groups: int, groups of the norm.
        class_agnostic: bool, whether all classes have the same deltas.
        gradient_scale: float, factor of the gradient that the features get.

    Call: (features "P2".."P5", rois float32 `[B, R, 4]`) -> class logits `[B, R, K + 1]` and
    deltas `[B, R, K, 4]` (dy, dx, dh, dw), or `[B, R, 1, 4]` if `class_agnostic`.

    Raises:
        ValueError: if `design` is unknown.
    """

    def __init__(
        self,
        num_classes: int,
        units: int = 1024,
        sampling_ratio: int = 0,
        design: str = "two_fc",
        channels: int = 256,
        norm: str = "none",
        norm_groups: int = 32,
        class_agnostic: bool = False,
        gradient_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # the rois stay as they are
        if design not in DESIGNS:
            raise ValueError(
                f"`box_head` must be one of {tuple(DESIGNS)}. Received: box_head={design!r}"
            )
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "units": units,
            "sampling_ratio": sampling_ratio,
            "design": design,
            "channels": channels,
            "norm": norm,
            "norm_groups": norm_groups,
            "class_agnostic": class_agnostic,
            "gradient_scale": gradient_scale,
        }
        self.num_classes = num_classes
        self.num_deltas = 1 if class_agnostic else num_classes
        self.units = units
        self.sampling_ratio = sampling_ratio
        num_convs, num_dense = DESIGNS[design]
        self.convs = [
            conv_relu(channels, norm, norm_groups, self.dtype_policy, f"conv{i + 1}")
            for i in range(num_convs)
        ]
        for name in ("fc1", "fc2")[:num_dense]:
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
            4 * self.num_deltas,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            name="deltas",
            **options,
        )

    @property
    def dense(self) -> list[keras.layers.Dense]:
        """The fully connected layers."""
        return [self.fc1] if self.convs else [self.fc1, self.fc2]

    def build(self, features_shape: dict[str, Shape], rois_shape: Shape | None = None) -> None:
        channels = features_shape["P2"][-1]
        for conv in self.convs:
            conv.build((None, 7, 7, channels))
            channels = conv.filters
        self.fc1.build((None, 7 * 7 * channels))
        for layer in (*self.dense[1:], self.classes, self.deltas):
            layer.build((None, self.units))

    def call(self, features: Tensors, rois: Tensor) -> tuple[Tensor, Tensor]:
        batch, count = sides(rois)[:2]
        x = roi_align(features, rois, 7, self.sampling_ratio)
        if self.config["gradient_scale"] != 1:
            x = _scale_gradient(x, self.config["gradient_scale"])
        if self.convs:
            x = ops.reshape(x, (batch * count, 7, 7, x.shape[-1]))
            for conv in self.convs:
                x = conv(x)
        # Flat: TensorFlow makes 25 operations of a product of three axes with a matrix.
        x = ops.reshape(x, (batch * count, 7 * 7 * x.shape[-1]))
        for layer in self.dense:
            x = layer(x)
        logits = ops.reshape(self.classes(x), (batch, count, self.num_classes + 1))
        return logits, ops.reshape(self.deltas(x), (batch, count, self.num_deltas, 4))

    def compute_output_spec(
        self, features: Tensors, rois: Tensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        batch, count = rois.shape[:2]
        dtype = full_dtype(self.compute_dtype)
        return (
            keras.KerasTensor((batch, count, self.num_classes + 1), dtype=dtype),
            keras.KerasTensor((batch, count, self.num_deltas, 4), dtype=dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself, whose gradient is multiplied."""
    return with_gradient(lambda x: (x, lambda upstream: upstream * factor), x)


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class Detections(keras.layers.Layer):
    """Box head output -> detections: decode, clip, score threshold, NMS in each class, top D.

    Args:
        score_threshold: float, only scores above it are detections.
        nms_iou: float, a box is suppressed by a better one of its class above this IoU.
        max_detections: int D.
        delta_weights: 4 floats, see `decode_boxes`.

    Call: (rois `[B, R, 4]`, roi scores `[B, R]` (-inf is padding), class logits `[B, R, K + 1]`, or
    a list of them whose probabilities are averaged, deltas `[B, R, K or 1, 4]`, image_sizes int32
    `[B, 2]`) -> boxes float32 `[B, D, 4]`, scores float32
    `[B, D]`, classes int32 `[B, D]` (-1 is padding), num_detections int32 `[B]`.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        delta_weights: Sequence[float] = BOX_DELTA_WEIGHTS,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.score_threshold = score_threshold
        self.delta_weights = tuple(delta_weights)
        self.nms_iou = nms_iou
        self.max_detections = max_detections

    def call(
        self,
        rois: Tensor,
        roi_scores: Tensor,
        class_logits: Tensor | Sequence[Tensor],
        deltas: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        stages = class_logits if isinstance(class_logits, (list, tuple)) else [class_logits]
        probs = [ops.softmax(full_precision(logits), axis=-1)[:, :, :-1] for logits in stages]
        probs = probs[0] if len(probs) == 1 else sum(probs) / len(probs)
        batch, count, num_classes = sides(rois)[0], rois.shape[1], probs.shape[2]
        total = count * num_classes
        usable = (probs > self.score_threshold) & (roi_scores[:, :, None] > NO_SCORE)
        scores = ops.reshape(ops.where(usable, probs, NO_SCORE), (batch, total))
        scores, indices = ops.top_k(scores, min(total, CANDIDATES_PER_PROPOSAL * count))
        classes = ops.cast(indices % num_classes, "int32")
        rows = indices // num_classes
        rows_of_deltas = indices if deltas.shape[2] == num_classes else rows
        deltas = ops.reshape(full_precision(deltas), (batch, count * deltas.shape[2], 4))
        deltas = take_rows(deltas, rows_of_deltas)
        boxes = take_rows(rois, rows)
        boxes = clip_boxes(decode_boxes(deltas, boxes, self.delta_weights), image_sizes)
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
        class_logits: Tensor | Sequence[Tensor],
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
            "delta_weights": self.delta_weights,
        }
