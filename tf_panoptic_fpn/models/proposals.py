"""RPN output -> proposals: decode, clip, non-maximum suppression."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.ops.anchors import pyramid_anchors
from tf_panoptic_fpn.ops.boxes import RPN_DELTA_WEIGHTS, box_areas, clip_boxes, decode_boxes
from tf_panoptic_fpn.ops.nms import nms
from tf_panoptic_fpn.ops.precision import full_dtype, full_precision
from tf_panoptic_fpn.schema import Tensor, Tensors

STRIDES = (4, 8, 16, 32, 64)
NO_SCORE = float("-inf")


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class Proposals(keras.layers.Layer):
    """The best boxes of the region proposal network, in a fixed number.

    On each level the top `top_k[0]` anchors by objectness are decoded, clipped to the image and
    thinned by NMS; the top `top_k[1]` over all levels remain. No gradient passes.

    Args:
        anchor_sizes: 5 sizes in pixels, for P2..P6.
        anchor_ratios: heights / widths.
        top_k_train: (before NMS a level, after NMS an image) when `training`.
        top_k_test: the same otherwise.
        nms_iou: a box is suppressed by a better one above this IoU.

    Call: (features "P2".."P6", objectness logits, deltas, image_sizes int32 `[B, 2]`) ->
    boxes float32 `[B, R, 4]` (zeros are padding), scores float32 `[B, R]` (logits by descending
    value; -inf is padding) and the index of each one's anchor, int32 `[B, R]`.
    """

    def __init__(
        self,
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        top_k_train: Sequence[int] = (2000, 1000),
        top_k_test: Sequence[int] = (1000, 1000),
        nms_iou: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.anchor_sizes = tuple(anchor_sizes)
        self.anchor_ratios = tuple(anchor_ratios)
        self.top_k_train = tuple(top_k_train)
        self.top_k_test = tuple(top_k_test)
        self.nms_iou = nms_iou
        if len(self.anchor_sizes) != len(STRIDES):
            raise ValueError(
                f"`anchor_sizes` must have one size for each of P2..P6. Received: {anchor_sizes}"
            )

    def anchors(self, features: Tensors) -> Tensor:
        """Anchors `[A, 4]` of all levels for a dict of feature maps "P2".."P6"."""
        sizes = [ops.shape(features[level])[1:3] for level in sorted(features)]
        dtype = full_dtype(features["P2"].dtype)
        return pyramid_anchors(sizes, STRIDES, self.anchor_sizes, self.anchor_ratios, dtype)

    def call(
        self,
        features: Tensors,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        before, after = self.top_k_train if training else self.top_k_test
        anchors = self.anchors(features)
        boxes, scores, indices, start = [], [], [], 0
        for level_logits, level_deltas in zip(logits, deltas, strict=True):
            count = ops.shape(level_logits)[1]
            level_anchors = anchors[start : start + count]
            level = _top_boxes(level_logits, level_deltas, level_anchors, before)
            boxes.append(level[0])
            scores.append(level[1])
            indices.append(level[2] + start)
            start = start + count
        batch, levels, k = ops.shape(logits[0])[0], len(logits), before
        scores = ops.concatenate(scores, axis=1)  # B x levels k
        anchor_indices = ops.concatenate(indices, axis=1)
        boxes = clip_boxes(ops.concatenate(boxes, axis=1), image_sizes)
        scores = ops.where(box_areas(boxes) > 0, scores, NO_SCORE)
        keep = nms(
            ops.reshape(boxes, (batch * levels, k, 4)),
            ops.reshape(scores, (batch * levels, k)),
            self.nms_iou,
        )
        scores = ops.where(ops.reshape(keep, (batch, levels * k)), scores, NO_SCORE)
        scores, best = ops.top_k(scores, min(after, levels * k))
        boxes = ops.take_along_axis(boxes, best[:, :, None], axis=1)
        boxes = ops.where(scores[:, :, None] > NO_SCORE, boxes, 0.0)
        anchor_indices = ops.take_along_axis(anchor_indices, best, axis=1)
        return ops.stop_gradient(boxes), ops.stop_gradient(scores), anchor_indices

    def compute_output_spec(
        self,
        features: Tensors,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[keras.KerasTensor, ...]:
        before, after = self.top_k_train if training else self.top_k_test
        batch, count = image_sizes.shape[0], min(after, len(logits) * before)
        dtype = full_dtype(deltas[0].dtype)
        return (
            keras.KerasTensor((batch, count, 4), dtype=dtype),
            keras.KerasTensor((batch, count), dtype=dtype),
            keras.KerasTensor((batch, count), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "anchor_sizes": self.anchor_sizes,
            "anchor_ratios": self.anchor_ratios,
            "top_k_train": self.top_k_train,
            "top_k_test": self.top_k_test,
            "nms_iou": self.nms_iou,
        }


def _top_boxes(
    logits: Tensor, deltas: Tensor, anchors: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and indices of a level's k best anchors; score -inf where it has fewer."""
    logits = full_precision(ops.stop_gradient(logits))
    deltas = full_precision(ops.stop_gradient(deltas))
    # Padding first keeps k static whatever the size of the level.
    missing = k if logits.shape[1] is None else max(k - logits.shape[1], 0)
    logits = ops.pad(logits, ((0, 0), (0, missing)), constant_values=NO_SCORE)
    scores, indices = ops.top_k(logits, k)
    indices = ops.minimum(indices, ops.shape(deltas)[1] - 1)
    deltas = ops.take_along_axis(deltas, indices[:, :, None], axis=1)
    boxes = decode_boxes(deltas, ops.take(anchors, indices, axis=0), RPN_DELTA_WEIGHTS)
    return boxes, scores, ops.cast(indices, "int32")
