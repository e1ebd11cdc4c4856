"""Panoptic quality (PQ), by the rules of the official panopticapi."""

import typing

import numpy as np

from tf_panoptic_fpn.errors import DataError


class PanopticQuality:
    """Streaming panoptic quality of any number of images.

    A predicted and a ground-truth segment of one category match if their IoU is above 0.5, the
    union being taken without the predicted pixels on void. A crowd segment never matches and is
    never missed. An unmatched prediction is not a false positive if more than half of it lies on
    void or on crowds of its own category.

    The figures are those of panopticapi except where it depends on what its files say of the map:
    areas are counted in the map, not read from the JSON; every crowd segment of a category counts,
    not only the last one listed; an id of the ground-truth map that is not listed is an error; and
    a group (Things, Stuff) without any class is 0 with `n` 0, not a division by zero.

    Args:
        categories: `CategoryTable` of both, ground truth and predictions.

    Reference: Panoptic Segmentation, arXiv:1801.00868, section 4.
    """

    def __init__(self, categories):
        self.categories = categories
        self._class_of = {c.id: index for index, c in enumerate(categories.categories)}
        num_classes = len(categories.categories)
        self._iou_sum = np.zeros(num_classes)
        self._tp = np.zeros(num_classes, np.int64)
        self._fp = np.zeros(num_classes, np.int64)
        self._fn = np.zeros(num_classes, np.int64)

    def update(self, gt_ids, gt_segments, pred_ids, pred_segments, image=""):
        """Adds one image.

        Args:
            gt_ids: int `[H, W]`, segment id of each pixel; 0 is void.
            gt_segments: list of dicts `id`, `category_id` and `iscrowd` (0 if left out).
            pred_ids: int `[H, W]`, as `gt_ids`.
            pred_segments: list of dicts `id`, `category_id`.
            image: name of the image, for error messages.

        Raises:
            DataError: if the maps differ in size, if a map and its list of segments do not hold the
                same ids, or if a category is unknown.
        """
        gt_ids, pred_ids = np.asarray(gt_ids), np.asarray(pred_ids)
        if gt_ids.shape != pred_ids.shape:
            raise DataError(
                f"{image}: prediction and ground truth must have one size. "
                f"Received: {pred_ids.shape} and {gt_ids.shape}"
            )
        gt = self._read_segments(gt_segments, f"{image}: ground truth")
        pred = self._read_segments(pred_segments, f"{image}: prediction")
        overlap = _count_overlaps(gt_ids, gt, pred_ids, pred)

        intersection = overlap[1:, 1:]
        pred_on_void = overlap[0, 1:]
        gt_area, pred_area = overlap[1:].sum(axis=1), overlap[:, 1:].sum(axis=0)
        same_class = gt.classes[:, None] == pred.classes[None, :]
        iou = intersection / (gt_area[:, None] + pred_area - intersection - pred_on_void)
        matches = same_class & ~gt.is_crowd[:, None] & (iou > 0.5)

        pred_on_crowd = (intersection * (same_class & gt.is_crowd[:, None])).sum(axis=0)
        is_ignored = (pred_on_void + pred_on_crowd) / pred_area > 0.5
        is_missed = ~matches.any(axis=1) & ~gt.is_crowd
        is_false = ~matches.any(axis=0) & ~is_ignored

        gt_rows, _ = np.nonzero(matches)
        np.add.at(self._iou_sum, gt.classes[gt_rows], iou[matches])
        np.add.at(self._tp, gt.classes[gt_rows], 1)
        np.add.at(self._fn, gt.classes[is_missed], 1)
        np.add.at(self._fp, pred.classes[is_false], 1)

    def merge(self, other):
        """Adds the images of another `PanopticQuality` over the same categories.

        Raises:
            ValueError: if the categories differ.
        """
        if other.categories != self.categories:
            raise ValueError("`merge` needs two metrics over the same categories")
        self._iou_sum += other._iou_sum
        self._tp += other._tp
        self._fp += other._fp
        self._fn += other._fn

    def result(self):
        """Returns the figures of all images so far, as fractions.

        Returns:
            dict: `All`, `Things` and `Stuff`, each a dict `PQ`, `SQ`, `RQ` (means over the `n`
            classes that occur in the ground truth or as a false positive), and `per_class`, a dict
            class name -> `PQ`, `SQ`, `RQ`, `tp`, `fp`, `fn`. Where nothing occurs they are 0.
        """
        weight = self._tp + 0.5 * self._fp + 0.5 * self._fn
        occurs = weight > 0
        values = {
            "PQ": self._iou_sum / np.where(occurs, weight, 1),
            "SQ": self._iou_sum / np.maximum(self._tp, 1),
            "RQ": self._tp / np.where(occurs, weight, 1),
        }
        is_thing = np.array([c.is_thing for c in self.categories.categories], bool)
        groups = {"All": occurs, "Things": occurs & is_thing, "Stuff": occurs & ~is_thing}
        result = {name: _group_means(values, group) for name, group in groups.items()}
        names = self.categories.unique_names
        result["per_class"] = {
            names[category_id]: {
                **{key: float(value[index]) for key, value in values.items()},
                "tp": int(self._tp[index]),
                "fp": int(self._fp[index]),
                "fn": int(self._fn[index]),
            }
            for category_id, index in self._class_of.items()
        }
        return result

    def _read_segments(self, segments, where):
        """Returns the listed segments as arrays, by ascending id."""
        segments = sorted(segments, key=lambda segment: segment["id"])
        for segment in segments:
            if segment["category_id"] not in self._class_of:
                raise DataError(
                    f"{where}: segment {segment['id']} has an unknown category. "
                    f"Received: {segment['category_id']}"
                )
        ids = np.array([segment["id"] for segment in segments], np.int64)
        if np.any(ids < 1) or np.any(ids[1:] == ids[:-1]):
            raise DataError(f"{where}: segment ids must be unique and above 0. Received: {ids}")
        return _Segments(
            where=where,
            ids=ids,
            classes=np.array([self._class_of[s["category_id"]] for s in segments], np.int64),
            is_crowd=np.array([bool(s.get("iscrowd", 0)) for s in segments], bool),
        )


class _Segments(typing.NamedTuple):
    where: str
    ids: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray


def _count_overlaps(gt_ids, gt, pred_ids, pred):
    """Counts the pixels of each pair of segments.

    Returns:
        int `[G + 1, P + 1]`; row 0 and column 0 are void.
    """
    gt_ids, pred_ids = gt_ids.ravel(), pred_ids.ravel()
    # Runs of equal pairs are some hundred times fewer than pixels, so only they are looked up.
    changes = (gt_ids[1:] != gt_ids[:-1]) | (pred_ids[1:] != pred_ids[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=gt_ids.size)
    shape = len(gt.ids) + 1, len(pred.ids) + 1
    pairs = _rows(gt_ids[starts], gt) * shape[1] + _rows(pred_ids[starts], pred)
    counts = np.bincount(pairs, weights=lengths, minlength=shape[0] * shape[1])
    overlap = counts.astype(np.int64).reshape(shape)
    for segments, areas in ((gt, overlap.sum(axis=1)), (pred, overlap.sum(axis=0))):
        if np.any(areas[1:] == 0):
            absent = segments.ids[areas[1:] == 0].tolist()
            raise DataError(f"{segments.where}: listed segments have no pixel. Received: {absent}")
    return overlap


def _rows(ids, segments):
    """Returns 0 for void and 1 + the position of each other id among the listed segments."""
    listed = np.concatenate([[0], segments.ids])
    rows = np.minimum(np.searchsorted(listed, ids), len(listed) - 1)
    if np.any(listed[rows] != ids):
        unlisted = np.unique(ids[listed[rows] != ids]).tolist()
        raise DataError(
            f"{segments.where}: the map holds ids that are not listed. Received: {unlisted}"
        )
    return rows


def _group_means(values, group):
    means = {
        key: float(value[group].mean()) if group.any() else 0.0 for key, value in values.items()
    }
    return {**means, "n": int(group.sum())}
