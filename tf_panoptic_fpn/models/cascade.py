"""Cascade R-CNN (Cai and Vasconcelos, arXiv:1712.00726): each box head starts from better boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.models import losses
from tf_panoptic_fpn.models.box_head import BoxHead
from tf_panoptic_fpn.models.losses import Terms
from tf_panoptic_fpn.ops.boxes import box_areas, clip_boxes, decode_boxes
from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.matching import match_boxes
from tf_panoptic_fpn.ops.precision import full_precision
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class CascadeBoxHead(keras.layers.Layer):
    """Box heads in a row; each reads the boxes that the one before moved and clipped to the image.

    The features get 1 / stages of each head's gradient, the heads all of theirs.

    Args:
        ious: IoU from which a box is foreground, one a stage.
        delta_weights: 4 floats a stage, see `decode_boxes`.
        head: arguments of each `BoxHead`, which is class-agnostic.

    Call: (features "P2".."P5", rois float32 `[B, R, 4]`, image_sizes int32 `[B, 2]`) -> the rois of
    the last stage `[B, R, 4]`, a list of class logits `[B, R, K + 1]`, one a stage, and the deltas
    `[B, R, 1, 4]` of the last. Rows stay where they are: an empty box has features of 0.
    """

    def __init__(
        self,
        ious: Sequence[float],
        delta_weights: Sequence[Sequence[float]],
        head: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # the rois stay as they are
        self.ious = tuple(ious)
        self.delta_weights = tuple(tuple(weights) for weights in delta_weights)
        self.head = dict(head)
        self.stages = [
            BoxHead(
                **self.head,
                class_agnostic=True,
                gradient_scale=1 / len(self.ious),
                dtype=self.dtype_policy,
                name=f"stage{i}",
            )
            for i in range(len(self.ious))
        ]

    def build(
        self,
        features_shape: dict[str, Shape],
        rois_shape: Shape | None = None,
        image_sizes_shape: Shape | None = None,
    ) -> None:
        for stage in self.stages:
            stage.build(features_shape, rois_shape)

    def call(
        self, features: Tensors, rois: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        class_logits, deltas = self.stages[0](features, rois)
        logits = [class_logits]
        for i, stage in enumerate(self.stages[1:]):
            rois = self.moved(i, rois, deltas, image_sizes)
            class_logits, deltas = stage(features, rois)
            logits.append(class_logits)
        return rois, logits, deltas

    def moved(self, stage: int, rois: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        """The boxes `[B, R, 4]` that a stage moves its rois to by its deltas `[B, R, 1, 4]`."""
        deltas = full_precision(deltas[:, :, 0])
        boxes = clip_boxes(decode_boxes(deltas, rois, self.delta_weights[stage]), image_sizes)
        return ops.stop_gradient(boxes)

    def compute_output_spec(
        self, features: Tensors, rois: Tensor, image_sizes: Tensor
    ) -> tuple[keras.KerasTensor, list[keras.KerasTensor], keras.KerasTensor]:
        specs = [stage.compute_output_spec(features, rois) for stage in self.stages]
        return (
            keras.KerasTensor(rois.shape, dtype=rois.dtype),
            [logits for logits, _ in specs],
            specs[-1][1],
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ious": self.ious,
            "delta_weights": self.delta_weights,
            "head": self.head,
        }


def cascade_losses(
    box_head: CascadeBoxHead,
    features: Tensors,
    targets: Tensors,
    class_weights: Sequence[float] | None = None,
) -> Terms:
    """The losses of every stage: of the sampled rois, then of all the boxes that came of them.

    Args:
        box_head: `CascadeBoxHead`.
        features: "P2".."P5".
        targets: of `targets.roi_targets` and `targets.ground_truth`, and `image_sizes` int32
            `[B, 2]`.
        class_weights: see `losses.box_losses`.

    Returns:
        Dict "class_stage0", "box_stage0", "class_stage1", ... of (sum, count); the count is that of
        the boxes of the stage.
    """
    terms: Terms = {}
    deltas: Tensor = None
    for i, stage in enumerate(box_head.stages):
        if i:
            rois = box_head.moved(i - 1, targets["rois"], deltas, targets["image_sizes"])
            targets = rematched(targets, rois, box_head.ious[i], stage.num_classes)
        class_logits, deltas = stage(features, targets["rois"])
        of_stage = losses.box_losses(
            class_logits,
            deltas,
            targets["rois"],
            targets["classes"],
            targets["matched_boxes"],
            targets["is_valid"],
            class_weights,
            box_head.delta_weights[i],
        )
        terms.update({f"{name}_stage{i}": term for name, term in of_stage.items()})
    return terms


def rematched(targets: Tensors, rois: Tensor, iou: float, num_classes: int) -> Tensors:
    """The targets of other rois: all are matched anew, none is sampled, and empty ones are padding.

    Args:
        targets: see `cascade_losses`.
        rois: float32 `[B, T, 4]`, row by row those of `targets`, moved.
        iou: float, below it a roi is background.
        num_classes: int K.

    Returns:
        Dict, `targets` with other `rois`, `classes`, `matched_boxes` and `is_valid`.
    """
    is_valid = targets["is_valid"] & (box_areas(rois) > 0)
    rois = ops.where(is_valid[:, :, None], rois, 0.0)
    matched, labels = match_boxes(
        targets["gt_boxes"], targets["gt_is_valid"], rois, (iou, iou), allow_low_quality=False
    )
    is_foreground = is_valid & (labels == 1)
    classes = take_rows(targets["gt_classes"], matched)
    return {
        **targets,
        "rois": rois,
        "classes": ops.where(is_foreground, classes, num_classes),
        "matched_boxes": take_rows(targets["gt_boxes"], matched),
        "is_valid": is_valid,
    }
