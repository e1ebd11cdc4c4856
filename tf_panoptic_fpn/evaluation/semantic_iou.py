"""Semantic segmentation: mean intersection over union."""

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import DataError


class SemanticIoU:
    """Streaming mean IoU and pixel accuracy from one confusion matrix.

    A class that occurs neither in the ground truth nor in a prediction is left out of the mean; one
    that is only predicted counts as 0.

    Args:
        class_names: list of S distinct names, by class index.
    """

    def __init__(self, class_names):
        if len(set(class_names)) != len(class_names):
            raise ValueError(f"`class_names` must be distinct. Received: {class_names}")
        self.class_names = list(class_names)
        self._confusion = np.zeros((len(class_names), len(class_names)), np.int64)  # gt, pred

    def update(self, gt, pred, image=""):
        """Adds one image.

        Args:
            gt: int `[H, W]`, class of each pixel; 255 is ignored.
            pred: int `[H, W]`.
            image: name of the image, for error messages.

        Raises:
            DataError: if the maps differ in size, or hold a class out of range.
        """
        gt, pred = np.asarray(gt), np.asarray(pred)
        if gt.shape != pred.shape:
            raise DataError(
                f"{image}: prediction and ground truth must have one size. "
                f"Received: {pred.shape} and {gt.shape}"
            )
        num_classes = len(self.class_names)
        is_labelled = gt != schema.IGNORED
        gt, pred = gt[is_labelled].astype(np.int64), pred[is_labelled].astype(np.int64)
        for classes in (gt, pred):
            if classes.size and (classes.min() < 0 or classes.max() >= num_classes):
                raise DataError(
                    f"{image}: semantic classes must lie in 0..{num_classes - 1}. "
                    f"Received: {classes.min()}..{classes.max()}"
                )
        counts = np.bincount(gt * num_classes + pred, minlength=num_classes**2)
        self._confusion += counts.reshape(num_classes, num_classes)

    def merge(self, other):
        """Adds the images of another `SemanticIoU` over the same classes.

        Raises:
            ValueError: if the classes differ.
        """
        if other.class_names != self.class_names:
            raise ValueError("`merge` needs two metrics over the same classes")
        self._confusion += other._confusion

    def result(self):
        """Returns the figures of all images so far, as fractions.

        Returns:
            dict: `mIoU`, `pixel_accuracy` and `per_class`, a dict class name -> IoU. What no pixel
            bears on is None.
        """
        hits = np.diag(self._confusion)
        union = self._confusion.sum(axis=0) + self._confusion.sum(axis=1) - hits
        occurs = union > 0
        iou = hits / np.maximum(union, 1)
        total = self._confusion.sum()
        return {
            "mIoU": float(iou[occurs].mean()) if occurs.any() else None,
            "pixel_accuracy": float(hits.sum() / total) if total else None,
            "per_class": {
                name: float(value) if present else None
                for name, value, present in zip(self.class_names, iou, occurs, strict=True)
            },
        }
