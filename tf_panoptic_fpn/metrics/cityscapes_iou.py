"""Semantic scores of Cityscapes: IoU and instance-weighted IoU, by class and by category."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes_labels import FIRST_INSTANCE_ID, LABELS, label_ids

AVERAGE_SIZES = {  # pixels of an instance in the training set
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
INSTANCE_CATEGORIES = ("human", "vehicle")


class CityscapesIoU:
    """Streaming IoU and iIoU, equal to the official `evalPixelLevelSemanticLabeling`.

    A class is scored unless it is ignored; ground-truth pixels of ignored labels count for no one's
    false positives. The iIoU is that of a class or category with instances: each ground-truth pixel
    weighs the class's average size over the size of its instance, false positives weigh 1.

    Reference: The Cityscapes Dataset, arXiv:1604.01685, section 4.
    """

    def __init__(self) -> None:
        self._confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)  # gt, pred
        # Weighted pixels found and missed.
        self._found = dict.fromkeys([*AVERAGE_SIZES, *INSTANCE_CATEGORIES], 0.0)
        self._missed = dict(self._found)

    def update(
        self,
        gt_labels: np.ndarray,
        gt_instances: np.ndarray,
        pred_labels: np.ndarray,
        image: str = "",
    ) -> None:
        """Adds one image.

        Args:
            gt_labels: int `[H, W]`, label ids, as in `*_labelIds.png`.
            gt_instances: int `[H, W]`, as in `*_instanceIds.png`: 1000 label id + number, or the
                label id alone for stuff and groups.
            pred_labels: int `[H, W]`, label ids.
            image: name of the image, for error messages.

        Raises:
            DataError: if the maps differ in size, or hold an id that Cityscapes does not know.
        """
        gt_labels, gt_instances, pred_labels = map(
            np.asarray, (gt_labels, gt_instances, pred_labels)
        )
        for name, ids in (("instance map", gt_instances), ("prediction", pred_labels)):
            if ids.shape != gt_labels.shape:
                raise DataError(
                    f"{image}: {name} and ground truth must have one size. "
                    f"Received: {ids.shape} and {gt_labels.shape}"
                )
        for name, ids in (("ground truth", gt_labels), ("prediction", pred_labels)):
            _check_labels(ids, f"{image}: {name}")
        num_labels = len(LABELS)
        pairs = gt_labels.astype(np.int64) * num_labels + pred_labels
        counts = np.bincount(pairs.ravel(), minlength=num_labels**2)
        is_instance = gt_instances > FIRST_INSTANCE_ID
        self._add_instances(gt_instances[is_instance], pred_labels[is_instance], image)
        self._confusion += counts.reshape(num_labels, num_labels)

    def _add_instances(self, instance_ids: np.ndarray, pred_labels: np.ndarray, image: str) -> None:
        """Adds the pixels of instances, `[N]` each."""
        num_labels = len(LABELS)
        with_instances = label_ids(lambda label: label.has_instances)
        is_unknown = ~np.isin(instance_ids // FIRST_INSTANCE_ID, with_instances)
        if is_unknown.any():
            raise DataError(
                f"{image}: instance ids must be of labels that have instances. "
                f"Received: {np.unique(instance_ids[is_unknown])[:5].tolist()}"
            )
        pairs = instance_ids.astype(np.int64) * num_labels + pred_labels
        counts = np.bincount(pairs, minlength=num_labels**2 * FIRST_INSTANCE_ID)
        counts = counts.reshape(-1, num_labels)
        for instance_id in np.flatnonzero(counts.any(axis=1)).tolist():
            predicted, label_id = counts[instance_id], instance_id // FIRST_INSTANCE_ID
            label = LABELS[label_id]
            if not label.is_ignored:
                weight = AVERAGE_SIZES[label.name] / int(predicted.sum())
                self._add_instance(label.name, predicted, [label_id], weight)
                self._add_instance(label.category, predicted, _members(label.category), weight)

    def _add_instance(
        self, name: str, predicted: np.ndarray, members: Sequence[int], weight: float
    ) -> None:
        """Adds the pixels `predicted` as each label; those as one of `members` are found."""
        hits = int(predicted[members].sum())
        self._found[name] += hits * weight
        self._missed[name] += (int(predicted.sum()) - hits) * weight

    def merge(self, other: "CityscapesIoU") -> None:
        """Adds the images of another `CityscapesIoU`."""
        self._confusion += other._confusion
        for name in self._found:
            self._found[name] += other._found[name]
            self._missed[name] += other._missed[name]

    def result(self) -> dict[str, Any]:
        """Returns the figures of all images so far, as fractions.

        Returns:
            dict: `classes` and `categories`, each a dict `IoU`, `iIoU` (means over those that occur
            in the ground truth or, on pixels that count, in a prediction); `per_class` and
            `per_category`, dicts name -> `IoU`, `iIoU`. What no pixel bears on, and the iIoU of
            what has no instances, is None.
        """
        scored = label_ids(lambda label: not label.is_ignored)
        per_class = {LABELS[i].name: self._scores(LABELS[i].name, [i], [i]) for i in scored}
        per_category = {}
        for category in dict.fromkeys(LABELS[i].category for i in scored):
            members = [i for i in scored if LABELS[i].category == category]
            # Where instances count, a pixel found as an ignored label of the category is right.
            per_category[category] = self._scores(category, members, _members(category))
        return {
            "classes": {key: _mean(per_class, key) for key in ("IoU", "iIoU")},
            "categories": {key: _mean(per_category, key) for key in ("IoU", "iIoU")},
            "per_class": per_class,
            "per_category": per_category,
        }

    def _scores(
        self, name: str, members: Sequence[int], predicted: Sequence[int]
    ) -> dict[str, float | None]:
        """IoU of the labels `members`; for the iIoU the labels `predicted` count as found."""
        others = label_ids(lambda label: not label.is_ignored)
        others = [i for i in others if i not in members]
        hits = int(self._confusion[np.ix_(members, members)].sum())
        misses = int(self._confusion[members].sum()) - hits
        false = int(self._confusion[np.ix_(others, members)].sum())
        scores = {"IoU": _iou(hits, false, misses), "iIoU": None}
        if name in self._found:
            false = int(self._confusion[np.ix_(others, predicted)].sum())
            scores["iIoU"] = _iou(self._found[name], false, self._missed[name])
        return scores


def _members(category: str) -> list[int]:
    """Label ids of a category, ignored ones too."""
    return label_ids(lambda label: label.category == category)


def _check_labels(ids: np.ndarray, where: str) -> None:
    if ids.size and not 0 <= ids.min() <= ids.max() < len(LABELS):
        unknown = np.unique(ids[(ids < 0) | (ids >= len(LABELS))])[:5].tolist()
        raise DataError(
            f"{where}: label ids must lie in 0..{len(LABELS) - 1} (not train ids). "
            f"Received: {unknown}"
        )


def _iou(hits: float, false: float, misses: float) -> float | None:
    union = hits + false + misses
    return hits / union if union else None


def _mean(scores: Mapping[str, Mapping[str, float | None]], key: str) -> float | None:
    values = [v for score in scores.values() if (v := score[key]) is not None]
    # `cumsum` adds one after the other, as the official script does: equal to the last bit.
    return float(np.cumsum(values)[-1] / len(values)) if values else None
