"""Panoptic quality (PQ), by the rules of the official panopticapi."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError

SIZES = ("small", "medium", "large")
_SIZE_LIMITS = (32**2, 96**2)  # pixels; COCO's borders between the sizes
_IOU_SUM, _TP, _FP, _FN = range(4)
_COUNTS = {"tp": _TP, "fp": _FP, "fn": _FN}


class PanopticQuality:
    """Streaming panoptic quality of any number of images.

    A predicted and a ground-truth segment of one category match if their IoU is above 0.5, the
    union being taken without the predicted pixels on void. A crowd segment never matches and is
    never missed. An unmatched prediction is not a false positive if more than half of it lies on
    void or on crowds of its own category.

    The figures are those of panopticapi except where it depends on what the JSON of the ground
    truth says of the map. Where `strict`, areas are counted in the map; every crowd segment of a
    category counts; and the map and the list of segments must hold the same ids. Otherwise, as in
    panopticapi, a listed `area` is believed; only the crowd segment of a category that is listed
    last counts; an id that is not listed is neither void nor a segment; and a listed segment
    without pixels is missed. In both, a group (Things, Stuff) without any class is 0 with `n` 0,
    not a division by zero.

    Args:
        categories: `CategoryTable` of both, ground truth and predictions.
        strict: bool, count what the map holds and not what its JSON says.

    Attributes:
        num_mismatched: images whose ground truth differs from its JSON in ids or areas; where
            `strict`, 0.

    Reference: Panoptic Segmentation, arXiv:1801.00868, section 4.
    """

    def __init__(self, categories: CategoryTable, strict: bool = True) -> None:
        self.categories = categories
        self.strict = strict
        self._class_of = {c.id: index for index, c in enumerate(categories.categories)}
        num_classes = len(categories.categories)
        self._totals = np.zeros((4, len(SIZES), num_classes))
        self._confusions = np.zeros((num_classes, num_classes), np.int64)  # [ground truth, pred]
        self.num_mismatched = 0

    def update(
        self,
        gt_ids: np.ndarray,
        gt_segments: Sequence[Mapping[str, Any]],
        pred_ids: np.ndarray,
        pred_segments: Sequence[Mapping[str, Any]],
        image: str = "",
    ) -> float | None:
        """Adds one image.

        Args:
            gt_ids: int `[H, W]`, segment id of each pixel; 0 is void.
            gt_segments: list of dicts `id`, `category_id` and, if need be, `iscrowd` (0 if left
                out) and `area` (pixels; read only where not `strict`, and counted if left out).
            pred_ids: int `[H, W]`, as `gt_ids`.
            pred_segments: list of dicts `id`, `category_id`.
            image: name of the image, for error messages.

        Returns:
            float, the PQ of this image alone; None if no class occurs in it.

        Raises:
            DataError: if the maps differ in size, if a map and its list of segments do not hold the
                same ids (for the ground truth: only where `strict`), if an id is listed twice, if a
                category is unknown, or if a listed area leaves no union to divide by.
        """
        gt_ids, pred_ids = np.asarray(gt_ids), np.asarray(pred_ids)
        if gt_ids.shape != pred_ids.shape:
            raise DataError(
                f"{image}: prediction and ground truth must have one size. "
                f"Received: {pred_ids.shape} and {gt_ids.shape}"
            )
        gt = self._read_segments(gt_segments, f"{image}: ground truth")
        pred = self._read_segments(pred_segments, f"{image}: prediction")
        overlap = self._count_overlaps(gt_ids, gt, pred_ids, pred)

        intersection = overlap[1:-1, 1:]
        pred_on_void = overlap[0, 1:]
        gt_pixels, pred_area = overlap[1:-1].sum(axis=1), overlap[:, 1:].sum(axis=0)
        gt_area = gt_pixels
        if not self.strict:
            gt_area = np.where(np.isnan(gt.listed_area), gt_pixels, gt.listed_area)
            is_wrong = (gt_pixels == 0) | (gt_area != gt_pixels)
            self.num_mismatched += bool(overlap[-1].any() or is_wrong.any())

        same_class = gt.classes[:, None] == pred.classes
        rows, columns = np.nonzero(same_class & ~gt.is_crowd[:, None] & (intersection > 0))
        shared = intersection[rows, columns]
        union = gt_area[rows] + pred_area[columns] - shared - pred_on_void[columns]
        if not union.all():
            wrong = _few(gt.ids[rows[union == 0]])
            raise DataError(f"{gt.where}: segments with an impossible `area`. Received: {wrong}")
        iou = shared / union
        matches = iou > 0.5
        rows, columns, iou = rows[matches], columns[matches], iou[matches]
        gt_unmatched = np.ones(len(gt.ids), bool)
        gt_unmatched[rows] = False
        pred_unmatched = np.ones(len(pred.ids), bool)
        pred_unmatched[columns] = False

        pred_on_crowd = (intersection * (same_class & gt.excuses[:, None])).sum(axis=0)
        is_ignored = (pred_on_void + pred_on_crowd) / pred_area > 0.5
        is_missed = gt_unmatched & ~gt.is_crowd
        is_false = pred_unmatched & ~is_ignored

        gt_bins = self._bins(gt.classes, gt_pixels)
        counts = np.zeros_like(self._totals)
        counts[_IOU_SUM] = self._histogram(gt_bins[rows], iou)
        counts[_TP] = self._histogram(gt_bins[rows])
        counts[_FP] = self._histogram(self._bins(pred.classes, pred_area)[is_false])
        counts[_FN] = self._histogram(gt_bins[is_missed])
        self._totals += counts
        self._add_confusions(
            intersection[is_missed][:, pred_unmatched],
            gt.classes[is_missed],
            pred.classes[pred_unmatched],
        )
        values, occurs = _qualities(counts.sum(axis=1))
        return float(values["PQ"][occurs].mean()) if occurs.any() else None

    def merge(self, other: "PanopticQuality") -> None:
        """Adds the images of another `PanopticQuality` over the same categories.

        Raises:
            ValueError: if the categories or `strict` differ.
        """
        if (other.categories, other.strict) != (self.categories, self.strict):
            raise ValueError("`merge` needs two metrics over the same categories, equally strict")
        self._totals += other._totals
        self._confusions += other._confusions
        self.num_mismatched += other.num_mismatched

    def result(self, splits: Mapping[str, Sequence[int]] | None = None) -> dict[str, Any]:
        """Returns the figures of all images so far, as fractions.

        Args:
            splits: dict name -> category ids, groups of classes to average beside the usual ones.

        Returns:
            dict:

            - `All`, `Things`, `Stuff`: each a dict `PQ`, `SQ`, `RQ`, means over the `n` classes
              that occur in the ground truth or as a false positive. Where none does they are 0.
            - `splits`: the same for each of `splits`; left out if there is none.
            - `per_class`: class name -> `PQ`, `SQ`, `RQ`, `tp`, `fp`, `fn`.
            - `by_size`: `small` (below 32**2 pixels), `medium` (below 96**2) and `large`, as `All`,
              of ground-truth segments of this size; a false positive counts by its own size.
            - `confusions`: list of dicts `gt`, `pred`, `count`, most frequent first: how many
              missed segments of the class `gt` had, among the predictions that match nothing, one
              of the class `pred` as the one that covers most of them.

        Raises:
            DataError: if a split names an unknown category id.
        """
        totals = self._totals.sum(axis=1)
        values, occurs = _qualities(totals)
        is_thing = np.array([c.is_thing for c in self.categories.categories], bool)
        result: dict[str, Any] = {
            "All": _means(values, occurs),
            "Things": _means(values, occurs & is_thing),
            "Stuff": _means(values, occurs & ~is_thing),
        }
        if splits:
            result["splits"] = {
                name: _means(values, occurs & self._is_in_split(name, category_ids))
                for name, category_ids in splits.items()
            }
        names = list(self.categories.unique_names.values())
        result["per_class"] = {
            name: {
                **{key: float(value[index]) for key, value in values.items()},
                **{key: int(totals[row, index]) for key, row in _COUNTS.items()},
            }
            for index, name in enumerate(names)
        }
        result["by_size"] = {
            size: _means(*_qualities(self._totals[:, row])) for row, size in enumerate(SIZES)
        }
        gt, pred = np.nonzero(self._confusions)
        counts = self._confusions[gt, pred]
        result["confusions"] = [
            {"gt": names[gt[row]], "pred": names[pred[row]], "count": int(counts[row])}
            for row in np.argsort(-counts, kind="stable")
        ]
        return result

    def _read_segments(self, segments: Sequence[Mapping[str, Any]], where: str) -> "_Segments":
        """Returns the listed segments as arrays, by ascending id."""
        # Of the crowds of a category, panopticapi keeps the one listed last.
        last_crowd = {s["category_id"]: s["id"] for s in segments if s.get("iscrowd") == 1}
        segments = sorted(segments, key=lambda segment: segment["id"])
        for segment in segments:
            if segment["category_id"] not in self._class_of:
                raise DataError(
                    f"{where}: segment {segment['id']} has an unknown category. "
                    f"Received: {segment['category_id']}"
                )
        ids = np.array([segment["id"] for segment in segments], np.int64)
        is_wrong = ids < 1
        is_wrong[1:] |= ids[1:] == ids[:-1]
        if is_wrong.any():
            raise DataError(
                f"{where}: segment ids must be unique and above 0. Received: {_few(ids[is_wrong])}"
            )
        is_crowd = np.array([segment.get("iscrowd") == 1 for segment in segments], bool)
        is_last = np.array([s["id"] == last_crowd.get(s["category_id"]) for s in segments], bool)
        return _Segments(
            where=where,
            ids=ids,
            classes=np.array([self._class_of[s["category_id"]] for s in segments], np.int64),
            is_crowd=is_crowd,
            excuses=is_crowd if self.strict else is_last,
            listed_area=np.array([s.get("area", np.nan) for s in segments], np.float64),
        )

    def _count_overlaps(
        self, gt_ids: np.ndarray, gt: "_Segments", pred_ids: np.ndarray, pred: "_Segments"
    ) -> np.ndarray:
        """Counts the pixels of each pair of segments.

        Returns:
            int `[G + 2, P + 1]`; row 0 and column 0 are void, the last row is what is not listed.
        """
        gt_ids, pred_ids = gt_ids.ravel(), pred_ids.ravel()
        # Runs of equal pairs are some hundred times fewer than pixels, so only they are looked up.
        changes = gt_ids[1:] != gt_ids[:-1]
        changes |= pred_ids[1:] != pred_ids[:-1]
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        lengths = np.diff(starts, append=gt_ids.size)
        gt_ids, pred_ids = gt_ids[starts], pred_ids[starts]
        shape = len(gt.ids) + 2, len(pred.ids) + 2
        rows, columns = _rows(gt_ids, gt), _rows(pred_ids, pred)
        counts = np.bincount(rows * shape[1] + columns, lengths, shape[0] * shape[1])
        overlap = counts.astype(np.int64).reshape(shape)
        _check_ids(pred, overlap.sum(axis=0), pred_ids[columns == shape[1] - 1])
        if self.strict:
            _check_ids(gt, overlap.sum(axis=1), gt_ids[rows == shape[0] - 1])
        return overlap[:, :-1]

    def _bins(self, classes: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """Positions in a flattened `[size, class]`."""
        return np.digitize(areas, _SIZE_LIMITS) * len(self._class_of) + classes

    def _histogram(self, bins: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        shape = self._totals.shape[1:]
        return np.bincount(bins, weights, shape[0] * shape[1]).reshape(shape)

    def _add_confusions(
        self, intersection: np.ndarray, gt_classes: np.ndarray, pred_classes: np.ndarray
    ) -> None:
        """Counts, for each missed segment, the class of the prediction that covers most of it."""
        if intersection.size:
            best = intersection.argmax(axis=1)
            is_covered = intersection.max(axis=1) > 0
            pairs = gt_classes[is_covered], pred_classes[best[is_covered]]
            np.add.at(self._confusions, pairs, 1)

    def _is_in_split(self, name: str, category_ids: Iterable[int]) -> np.ndarray:
        """bool `[C]`."""
        unknown = [c for c in category_ids if c not in self._class_of]
        if unknown:
            raise DataError(f"The split {name!r} has unknown category ids. Received: {unknown}")
        is_in_split = np.zeros(len(self._class_of), bool)
        is_in_split[[self._class_of[c] for c in category_ids]] = True
        return is_in_split


@dataclasses.dataclass(frozen=True)
class _Segments:
    """The listed segments of one map, by ascending id."""

    where: str
    ids: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray
    excuses: np.ndarray  # crowds that keep the predictions on them from being false positives
    listed_area: np.ndarray  # NaN where none is listed


def _rows(ids: np.ndarray, segments: _Segments) -> np.ndarray:
    """Returns 0 for void, 1 + the position among the listed segments, or 1 + their number."""
    listed = np.concatenate([[0], segments.ids, [np.iinfo(np.int64).max]])
    rows = np.searchsorted(listed, ids)
    rows[listed[rows] != ids] = len(listed) - 1
    return rows


def _check_ids(segments: _Segments, areas: np.ndarray, unlisted: np.ndarray) -> None:
    """Demands that a map and its list hold the same ids."""
    if unlisted.size:
        raise DataError(
            f"{segments.where}: the map holds ids that are not listed. "
            f"Received: {_few(np.unique(unlisted))}"
        )
    is_absent = areas[1:-1] == 0
    if is_absent.any():
        raise DataError(
            f"{segments.where}: listed segments have no pixel. "
            f"Received: {_few(segments.ids[is_absent])}"
        )


def _few(ids: np.ndarray) -> str:
    """The first ids as text, so that the message stays readable."""
    text = str(ids[:5].tolist())
    return text if len(ids) <= 5 else f"{text} and {len(ids) - 5} more"


def _qualities(totals: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """PQ, SQ and RQ `[C]` of totals `[4, C]`, and which classes occur."""
    iou_sum, tp, fp, fn = totals
    weight = tp + 0.5 * fp + 0.5 * fn
    occurs = weight > 0
    divisor = np.where(occurs, weight, 1)
    values = {"PQ": iou_sum / divisor, "SQ": iou_sum / np.maximum(tp, 1), "RQ": tp / divisor}
    return values, occurs


def _means(values: Mapping[str, np.ndarray], group: np.ndarray) -> dict[str, float]:
    means = {
        key: float(value[group].mean()) if group.any() else 0.0 for key, value in values.items()
    }
    return {**means, "n": int(group.sum())}
