"""pycocotools' own evaluation of what is in memory, and the boundary IoU in its place."""

import contextlib
import io

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_panoptic_fpn.metrics.boundary_iou import mask_boundary
from tf_panoptic_fpn.metrics.coco_ap import METRICS, SIZE_RECALLS


class BoundaryCOCOeval(COCOeval):
    """Matches by the smaller of mask IoU and boundary IoU; crowds keep the mask IoU.

    Reference: the authors' `boundary_iou.coco_instance_api`.
    """

    def computeIoU(self, imgId, catId):
        ious = super().computeIoU(imgId, catId)
        gt, detections = self._gts[imgId, catId], self._dts[imgId, catId]
        if not (gt and detections):
            return ious
        order = np.argsort([-d["score"] for d in detections], kind="mergesort")
        detections = [detections[i] for i in order[: self.params.maxDets[-1]]]
        is_crowd = [int(g["iscrowd"]) for g in gt]
        boundary_ious = mask_api.iou(
            [rle_boundary(d["segmentation"]) for d in detections],
            [rle_boundary(g["segmentation"]) for g in gt],
            is_crowd,
        )
        return np.where(np.array(is_crowd, bool), ious, np.minimum(ious, boundary_ious))


def rle_boundary(rle):
    return mask_api.encode(np.asfortranarray(mask_boundary(mask_api.decode(rle))))


def evaluate(ground_truth, results, iou_type):
    """A `COCOeval` that is through; sizes of results are those of their masks, if masks count.

    Args:
        ground_truth, results: as `coco_ap` takes them; masks are RLEs, and results have a `bbox`.
        iou_type: "bbox", "segm" or "boundary".
    """
    detections = []
    for result in results:
        if iou_type == "bbox":
            area = result["bbox"][2] * result["bbox"][3]
        else:
            area = float(mask_api.area(result["segmentation"]))
        detections.append({**result, "area": area, "iscrowd": 0})
    evaluator = BoundaryCOCOeval if iou_type == "boundary" else COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluator(
            _coco(ground_truth, ground_truth["annotations"]),
            _coco(ground_truth, detections),
            "bbox" if iou_type == "bbox" else "segm",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _coco(ground_truth, entries):
    coco = COCO()
    # It holds annotation 0 for unmatched.
    entries = [{**entry, "id": number} for number, entry in enumerate(entries, start=1)]
    coco.dataset = {**ground_truth, "annotations": entries}
    coco.createIndex()
    return coco


def assert_equal_to_official(figures, evaluation):
    """That what `coco_ap` returned is what a `COCOeval` says, to the last bit."""
    expected = [None if value < 0 else value for value in evaluation.stats.tolist()]
    assert [figures[name] for name in METRICS + SIZE_RECALLS] == expected
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    class_ap = [None if value < 0 else value for value in precision.mean(axis=(0, 1)).tolist()]
    assert [*figures["per_class"].values()] == class_ap
    occurs = precision[0, 0] > -1
    curves = figures["precision_recall"]
    assert curves["recall"] == evaluation.params.recThrs.tolist()
    if not occurs.any():
        assert all(curve is None for name, curve in curves.items() if name != "recall")
        return
    expected = precision[:, :, occurs].mean(axis=2)
    names = [f"AP{round(100 * threshold)}" for threshold in evaluation.params.iouThrs]
    assert [curves[name] for name in names] == expected.tolist()
    assert curves["AP"] == expected.mean(axis=0).tolist()
