"""RPN output -> proposals: decode, clip, non-maximum suppression."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.ops.anchors import pyramid_anchors
from tf_panoptic_fpn.ops.boxes import RPN_DELTA_WEIGHTS, box_areas, clip_boxes, decode_boxes
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.nms import nms
from tf_panoptic_fpn.ops.precision import full_dtype, full_precision
from tf_panoptic_fpn.ops.sides import sides
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

    Call: (features "P2".."P6", objectness logits, deltas, image_sizes int32 `[B, 2]`, and the
    anchors, if they are made already) ->
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
        sizes = [sides(features[level])[1:3] for level in sorted(features)]
        dtype = full_dtype(features["P2"].dtype)
        return pyramid_anchors(sizes, STRIDES, self.anchor_sizes, self.anchor_ratios, dtype)

    def call(
        self,
        features: dict[str, Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
        anchors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        before, after = self.top_k_train if training else self.top_k_test
        anchors = self.anchors(features) if anchors is None else anchors
        batch, levels, k = sides(logits[0])[0], len(logits), before
        scores, anchor_indices = _top_anchors(logits, k)  # B x levels k
        deltas = full_precision(take_rows(ops.concatenate(deltas, axis=1), anchor_indices))
        boxes = decode_boxes(deltas, ops.take(anchors, anchor_indices, axis=0), RPN_DELTA_WEIGHTS)
        boxes = clip_boxes(boxes, image_sizes)
        scores = ops.where(box_areas(boxes) > 0, scores, NO_SCORE)
        keep = nms(
            ops.reshape(boxes, (batch * levels, k, 4)),
            ops.reshape(scores, (batch * levels, k)),
            self.nms_iou,
        )
        scores = ops.where(ops.reshape(keep, (batch, levels * k)), scores, NO_SCORE)
        scores, best = ops.top_k(scores, min(after, levels * k))
        boxes = ops.where(scores[:, :, None] > NO_SCORE, take_rows(boxes, best), 0.0)
        anchor_indices = take_rows(anchor_indices, best)
        return ops.stop_gradient(boxes), ops.stop_gradient(scores), anchor_indices

    def compute_output_spec(
        self,
        features: dict[str, Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
        anchors: Tensor | None = None,
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


def _top_anchors(logits: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices `[B, levels k]` of each level's best; -inf where it has fewer than k."""
    scores, indices, start = [], [], 0
    for level in logits:
        # Padding first keeps k static whatever the size of the level.
        missing = k if level.shape[1] is None else max(k - level.shape[1], 0)
        padded = ops.pad(full_precision(level), ((0, 0), (0, missing)), constant_values=NO_SCORE)
        top = ops.top_k(padded, k)
        count = sides(level)[1]
        scores.append(top[0])
        indices.append(ops.minimum(top[1], count - 1) + start)
        start = start + count
    return ops.concatenate(scores, axis=1), ops.cast(ops.concatenate(indices, axis=1), "int32")
