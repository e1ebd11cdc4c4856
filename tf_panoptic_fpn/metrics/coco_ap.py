"""COCO's figures of average precision; pycocotools', in less time."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.garbage_collection import without_collection
from tf_panoptic_fpn.masks.rle import encode_segmentation
from tf_panoptic_fpn.metrics.coco_curves import BEST, RECALLS, precision_recall
from tf_panoptic_fpn.metrics.coco_matching import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    Instances,
    mask_areas,
    mask_boxes,
    match,
)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
SIZE_RECALLS = ("ARs", "ARm", "ARl")  # at 100 detections


@without_collection()
def coco_ap(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], iou_type: str
) -> dict[str, Any]:
    """Scores COCO results against COCO instance ground truth.

    The figures are those of pycocotools, but for this: the size of a result is that of its mask
    when masks are scored, even if it has a box, too; the annotation of id 0 can be matched; and
    results of unknown categories are an error.

    Args:
        ground_truth: dict `images`, `annotations`, `categories`, as in a COCO instance file.
        results: list of dicts `image_id`, `category_id`, `score` and `bbox` (xywh) or
            `segmentation` (RLE); a box that is left out is that of the mask.
        iou_type: `"bbox"`, `"segm"` or `"boundary"`: the smaller of mask and boundary IoU, see
            `metrics.boundary_iou`.

    Returns:
        dict, fractions: `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`,
        `ARm`, `ARl`; `per_class`, a dict class name -> AP; and `precision_recall`: `recall`, the
        101 points 0, .01, ... 1, and the precision at each, mean over the classes, at IoU .5, .55,
        ... .95 (`AP50`, `AP55`, ... `AP95`) and mean over these (`AP`). What no ground truth bears
        on is None.

    Raises:
        DataError: if a result is of an image or a category that the ground truth lacks.
    """
    table = CategoryTable.from_coco(ground_truth["categories"])
    for key, known in (
        ("image", {image["id"] for image in ground_truth["images"]}),
        ("category", set(table.by_id)),
    ):
        foreign = next((r for r in results if r[f"{key}_id"] not in known), None)
        if foreign:
            raise DataError(
                f"image {foreign['image_id']}: the {key} of a result must be one of the ground "
                f"truth. Received: {key}_id {foreign[f'{key}_id']}"
            )
    category_ids = sorted(table.by_id)
    positions = _positions(ground_truth["images"])
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    annotations, detections = map(_by_category, (ground_truth["annotations"], results))
    # [T, R, classes, sizes] and [T, classes, sizes, numbers]; -1 where nothing occurs.
    shape = len(IOU_THRESHOLDS), len(RECALLS), len(category_ids), len(AREA_RANGES)
    precision, recall = np.empty(shape), np.empty((shape[0], *shape[2:], len(BEST)))
    for row, category_id in enumerate(category_ids):  # all at once would take many times the memory
        gt = _ground_truth(annotations[category_id], positions, sizes, iou_type)
        found = _detections(detections[category_id], positions, iou_type)
        matches = match(gt, found, by_boundary=iou_type == "boundary")
        precision[:, :, row], recall[:, row] = precision_recall(matches)
    figures = _summary(precision, recall)
    class_ap = precision[..., 0].mean(axis=(0, 1)).tolist()
    figures["per_class"] = {
        table.unique_names[category_id]: ap if ap >= 0 else None
        for category_id, ap in zip(category_ids, class_ap, strict=True)
    }
    figures["precision_recall"] = _precision_recall(precision[..., 0])
    return figures


def _positions(images: Iterable[Mapping[str, Any]]) -> dict[int | str, int]:
    """Position of each image in the order of ids, in which equal scores are ranked."""
    ids = [image["id"] for image in images]
    is_mixed = len({isinstance(image_id, str) for image_id in ids}) > 1
    ids.sort(key=str if is_mixed else None)
    return {image_id: position for position, image_id in enumerate(ids)}


def _by_category(entries: Iterable[Mapping[str, Any]]) -> collections.defaultdict[int, list]:
    groups = collections.defaultdict(list)
    for entry in entries:
        groups[entry["category_id"]].append(entry)
    return groups


def _ground_truth(
    annotations: Sequence[Mapping[str, Any]],
    positions: Mapping[int | str, int],
    sizes: Mapping[int | str, tuple[int, int]],
    iou_type: str,
) -> Instances:
    """The annotations of one class."""
    masks = None
    if iou_type != "bbox":
        masks = [_rle(a["segmentation"], sizes[a["image_id"]]) for a in annotations]
    return Instances(
        images=np.array([positions[a["image_id"]] for a in annotations], np.int64),
        areas=np.array([a["area"] for a in annotations], np.float64),
        boxes=_boxes([a["bbox"] for a in annotations]) if masks is None else mask_boxes(masks),
        masks=masks,
        is_crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool),
        scores=np.zeros(len(annotations)),
    )


def _detections(
    results: Sequence[Mapping[str, Any]], positions: Mapping[int | str, int], iou_type: str
) -> Instances:
    """The results of one class; sizes are those of the masks, if masks are matched."""
    if iou_type == "bbox":
        masks = None
        of_masks = [row for row, result in enumerate(results) if result.get("bbox") is None]
        boxes = _boxes([result.get("bbox") or (0, 0, 0, 0) for result in results])
        areas = boxes[:, 2] * boxes[:, 3]
        rles = [results[row]["segmentation"] for row in of_masks]
        boxes[of_masks], areas[of_masks] = mask_boxes(rles), mask_areas(rles)
    else:
        masks = [result["segmentation"] for result in results]
        boxes, areas = mask_boxes(masks), mask_areas(masks)
    return Instances(
        images=np.array([positions[result["image_id"]] for result in results], np.int64),
        areas=areas,
        boxes=boxes,
        masks=masks,
        is_crowd=np.zeros(len(results), bool),
        scores=np.array([result["score"] for result in results], np.float64),
    )


def _rle(segmentation: Any, image_size: tuple[int, int]) -> Any:
    is_rle = isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list)
    return segmentation if is_rle else encode_segmentation(segmentation, image_size)


def _boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(len(boxes), 4)


def _summary(precision: np.ndarray, recall: np.ndarray) -> dict[str, Any]:
    """The figures of `METRICS` and `SIZE_RECALLS`.

    Args:
        precision: `[T, R, classes, sizes]`.
        recall: `[T, classes, sizes, numbers]`.
    """
    thresholds = [round(100 * threshold) for threshold in IOU_THRESHOLDS]
    at_50, at_75 = thresholds.index(50), thresholds.index(75)
    parts = [precision[..., 0], precision[at_50, ..., 0], precision[at_75, ..., 0]]
    parts += [precision[..., size] for size in (1, 2, 3)]
    parts += [recall[:, :, 0, number] for number in range(len(BEST))]
    parts += [recall[:, :, size, -1] for size in (1, 2, 3)]
    means = (part[part > -1] for part in parts)
    return {
        name: float(values.mean()) if values.size else None
        for name, values in zip(METRICS + SIZE_RECALLS, means, strict=True)
    }


def _precision_recall(precision: np.ndarray) -> dict[str, Any]:
    """Precision over recall, mean over classes; `precision`: `[thresholds, recalls, classes]`."""
    occurs = precision[0, 0] > -1
    curves = precision[:, :, occurs].mean(axis=2) if occurs.any() else None
    names = [f"AP{round(100 * threshold)}" for threshold in IOU_THRESHOLDS]
    figures = {
        name: None if curves is None else curve.tolist()
        for name, curve in zip(names, precision if curves is None else curves, strict=True)
    }
    figures["AP"] = None if curves is None else curves.mean(axis=0).tolist()
    return {"recall": RECALLS.tolist(), **figures}
