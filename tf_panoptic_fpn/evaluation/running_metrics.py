"""All metrics of an evaluation, fed image by image."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.threshold_sweep import ThresholdSweep
from tf_panoptic_fpn.formats.records import ImageRecord
from tf_panoptic_fpn.metrics.instance_ap import InstanceAP
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality
from tf_panoptic_fpn.metrics.semantic_iou import SemanticIoU
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.schema import IGNORED


class RunningMetrics:
    """Panoptic quality, box and mask AP, semantic IoU and a sweep, of what is predicted.

    Args:
        categories: `CategoryTable`.
        has_panoptic: bool; False where the ground truth has no panoptic maps, so no PQ.
        sweep: a `ThresholdSweep`, or None.
    """

    def __init__(
        self,
        categories: CategoryTable,
        has_panoptic: bool = True,
        sweep: ThresholdSweep | None = None,
    ) -> None:
        self._categories = categories
        self._panoptic = PanopticQuality(categories) if has_panoptic else None
        self._instances = InstanceAP(categories)
        self._semantic_classes = categories.semantic_classes
        names = {self._semantic_classes[c]: name for c, name in categories.unique_names.items()}
        if categories.semantic_things == "other":
            names[0] = "other (things)"  # a category may itself be called "other"
        self._semantic = SemanticIoU([names[s] for s in sorted(names)], IGNORED)
        self._sweep = sweep if has_panoptic else None
        self._has_instances = self._has_semantic = False
        self._present: set[int] = set()  # categories of the ground truth

    @property
    def needs_detections(self) -> bool:
        """Whether `sweep` reads the detections of a `Result`."""
        return self._sweep is not None

    def sweep(
        self, record: ImageRecord, ids: np.ndarray, result: Result
    ) -> list[PanopticQuality] | None:
        """The costly part of `update`, which several threads may do ahead of it."""
        if self._sweep is None:
            return None
        return self._sweep.score(ids, coco_segments(record), result, record.file_name)

    def update(
        self,
        record: ImageRecord,
        ids: np.ndarray,
        result: Result,
        swept: list[PanopticQuality] | None = None,
    ) -> float | None:
        """Adds one image.

        Args:
            record: has `image_id`, `file_name`, `segments` and `instances`.
            ids: int `[H, W]`, the ground truth's segment ids.
            result: `Result`.
            swept: what `sweep` returned for the image.

        Returns:
            The image's own PQ, a float; None where it has none.

        Raises:
            DataError: see `PanopticQuality.update`.
        """
        gt_segments = coco_segments(record)
        self._present |= occurring_categories(record)
        pq = None
        if self._panoptic is not None:
            pq = self._panoptic.update(
                ids, gt_segments, result.panoptic_map, result.segments, image=record.file_name
            )
        if swept is not None and self._sweep is not None:
            self._sweep.add(swept)
        if result.semantic_map is not None and gt_segments:
            self._has_semantic = True
            gt_semantic = _semantic_map(ids, gt_segments, self._semantic_classes)
            self._semantic.update(gt_semantic, result.semantic_map, image=record.file_name)
        if result.instances is not None:
            self._has_instances = True
            instances = result.to_coco(record.image_id)["instances"]
            self._update_instances(record, ids, gt_segments, instances)
        return pq

    def _update_instances(
        self,
        record: ImageRecord,
        ids: np.ndarray,
        gt_segments: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
    ) -> None:
        if record.instances is None:
            self._instances.update(record.image_id, ids, gt_segments, results)
            return
        annotations = [
            {
                "category_id": instance.category_id,
                "iscrowd": int(instance.is_crowd),
                "segmentation": instance.rle,
                "area": instance.area or float(mask_api.area(instance.rle)),
                "bbox": list(instance.bbox_xywh or mask_api.toBbox(instance.rle)),
            }
            for instance in record.instances
        ]
        self._instances.update_annotations(record.image_id, ids.shape, annotations, results)

    def result(self) -> dict[str, Any]:
        """Returns the part of the results that the metrics make up, see `evaluator.evaluate`."""
        check_occurring(self._present)
        names = self._categories.unique_names
        return {
            **({"panoptic": self._panoptic.result()} if self._panoptic is not None else {}),
            **(self._instances.result() if self._has_instances else {}),
            **({"semantic": self._semantic.result()} if self._has_semantic else {}),
            **({"sweep": self._sweep.result()} if self._sweep is not None else {}),
            "absent_classes": [n for c, n in names.items() if c not in self._present],
        }


def coco_segments(record: ImageRecord) -> list[dict[str, Any]]:
    """Lists the segments of a record as COCO panoptic files do."""
    return [
        {"id": s.id, "category_id": s.category_id, "iscrowd": int(s.is_crowd)}
        for s in record.segments
    ]


def occurring_categories(record: ImageRecord) -> set[int]:
    """Returns the set of the category ids in the ground truth of an image."""
    of_segments = {segment.category_id for segment in record.segments}
    return of_segments | {instance.category_id for instance in record.instances or ()}


def check_occurring(category_ids: Collection[int] | bool) -> None:
    """Raises DataError if nothing occurs in the ground truth: no figure would mean anything."""
    if not category_ids:
        raise DataError("The ground truth must hold a segment. Received: images of void alone")


def _semantic_map(
    ids: np.ndarray, segments: Sequence[Mapping[str, Any]], semantic_class: Mapping[int, int]
) -> np.ndarray:
    """Semantic classes `[H, W]` of a panoptic map; void, the id 0, is ignored."""
    classes = {0: IGNORED, **{s["id"]: semantic_class[s["category_id"]] for s in segments}}
    keys = np.array(sorted(classes))
    return np.array([classes[key] for key in keys.tolist()])[np.searchsorted(keys, ids)]
