"""Semantic segmentation: intersection over union and accuracy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import DataError


class SemanticIoU:
    """Streaming mean and frequency-weighted IoU, mean and pixel accuracy.

    The figures are those of detectron2's `SemSegEvaluator`: the means are over the classes that
    occur in the ground truth. A class that is only predicted has no IoU of its own; its pixels
    count against the classes that are really there.

    Args:
        class_names: list of S distinct names, by class index.
        ignored: int, the value of ground-truth pixels that do not count; by default 255, or -1 if
            255 is a class.
    """

    def __init__(self, class_names: Sequence[str], ignored: int | None = None) -> None:
        if len(set(class_names)) != len(class_names):
            raise ValueError(f"`class_names` must be distinct. Received: {class_names}")
        self.class_names = list(class_names)
        self._ignored = usual_ignored(class_names) if ignored is None else ignored
        self._confusion = np.zeros((len(class_names), len(class_names)), np.int64)  # gt, pred

    def update(self, gt: np.ndarray, pred: np.ndarray, image: str = "") -> None:
        """Adds one image.

        Args:
            gt: int `[H, W]`, class of each pixel, or `ignored`.
            pred: int `[H, W]`.
            image: name of the image, for error messages.

        Raises:
            DataError: if the maps differ in size, or hold a class out of range.
        """
        gt, pred = check_semantic_maps(gt, pred, len(self.class_names), self._ignored, image)
        is_labelled = gt != self._ignored
        num_classes = len(self.class_names)
        pairs = gt[is_labelled].astype(np.int64) * num_classes + pred[is_labelled]
        counts = np.bincount(pairs, minlength=num_classes**2)
        self._confusion += counts.reshape(num_classes, num_classes)

    def merge(self, other: "SemanticIoU") -> None:
        """Adds the images of another `SemanticIoU` over the same classes.

        Raises:
            ValueError: if the classes differ.
        """
        if other.class_names != self.class_names:
            raise ValueError("`merge` needs two metrics over the same classes")
        self._confusion += other._confusion

    def result(self) -> dict[str, Any]:
        """Returns the figures of all images so far, as fractions.

        Returns:
            dict: `mIoU`, `fIoU` (weighted by the share of each class in the ground truth),
            `mean_accuracy` (of the classes), `pixel_accuracy`, and `per_class`, a dict class name
            -> IoU. What no ground-truth pixel bears on is None.
        """
        hits = np.diag(self._confusion)
        gt = self._confusion.sum(axis=1)
        occurs = gt > 0
        union = self._confusion.sum(axis=0) + gt - hits
        iou = hits / np.where(occurs, union, 1)
        accuracy = hits / np.where(occurs, gt, 1)
        total = gt.sum()
        means = {"mIoU": None, "fIoU": None, "mean_accuracy": None, "pixel_accuracy": None}
        if total:
            means = {
                "mIoU": float(iou[occurs].sum() / occurs.sum()),
                "fIoU": float((iou[occurs] * (gt[occurs] / total)).sum()),
                "mean_accuracy": float(accuracy[occurs].sum() / occurs.sum()),
                "pixel_accuracy": float(hits.sum() / total),
            }
        per_class = {
            name: float(value) if present else None
            for name, value, present in zip(self.class_names, iou, occurs, strict=True)
        }
        return {**means, "per_class": per_class}


def usual_ignored(class_names: Sequence[str]) -> int:
    """Returns the value that no class has: that of most label maps, if it can be."""
    return schema.VOID_LABEL if len(class_names) <= schema.VOID_LABEL else schema.IGNORED


def check_semantic_maps(
    gt: np.ndarray, pred: np.ndarray, num_classes: int, ignored: int, image: str
) -> tuple[np.ndarray, np.ndarray]:
    """Checks that two semantic maps fit each other and their classes.

    Args:
        gt, pred: int `[H, W]`, classes below `num_classes`; `gt` may be `ignored`, and there `pred`
            may be anything.
        num_classes: int.
        ignored: int.
        image: name of the image, for error messages.

    Returns:
        The two as arrays.

    Raises:
        DataError: if the maps differ in size, or hold a class out of range.
    """
    gt, pred = np.asarray(gt), np.asarray(pred)
    if gt.shape != pred.shape:
        raise DataError(
            f"{image}: prediction and ground truth must have one size. "
            f"Received: {pred.shape} and {gt.shape}"
        )
    is_labelled = gt != ignored
    for classes in (gt[is_labelled], pred[is_labelled]):
        if classes.size and (classes.min() < 0 or classes.max() >= num_classes):
            raise DataError(
                f"{image}: semantic classes must lie in 0..{num_classes - 1}. "
                f"Received: {classes.min()}..{classes.max()}"
            )
    return gt, pred
