"""Average precision of boxes and masks, by pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_panoptic_fpn.errors import DataError

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")


class InstanceAP:
    """Box and mask AP against the thing segments of panoptic ground truth.

    Masks, boxes and areas of the ground truth are those of the panoptic map, where segments do not
    overlap; against a data set's own instance file, where they may, use `coco_ap`.

    Args:
        categories: `CategoryTable`; only its things are scored.
    """

    def __init__(self, categories):
        self._thing_ids = categories.thing_ids
        self._images = []
        self._annotations = []
        self._results = []

    def update(self, image_id, gt_ids, gt_segments, results):
        """Adds one image.

        Args:
            image_id: int or str, unique.
            gt_ids: int `[H, W]`, segment id of each pixel.
            gt_segments: list of dicts `id`, `category_id` and `iscrowd` (0 if left out).
            results: COCO results of this image, as `instance_results` returns them.
        """
        height, width = gt_ids.shape
        self._images.append({"id": image_id, "height": height, "width": width})
        gt_ids = np.asfortranarray(gt_ids)  # the order that `encode` reads
        for segment in gt_segments:
            if segment["category_id"] in self._thing_ids:
                rle = mask_api.encode((gt_ids == segment["id"]).view(np.uint8))
                self._annotations.append(
                    {
                        "image_id": image_id,
                        "category_id": segment["category_id"],
                        "iscrowd": int(segment.get("iscrowd", 0)),
                        "segmentation": rle,
                        "area": float(mask_api.area(rle)),
                        "bbox": mask_api.toBbox(rle).tolist(),
                    }
                )
        self._results.extend(results)

    def result(self):
        """Returns dict `box_ap` and `mask_ap`, each as `coco_ap` returns it."""
        ground_truth = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": category_id} for category_id in self._thing_ids],
        }
        return {
            "box_ap": coco_ap(ground_truth, self._results, "bbox"),
            "mask_ap": coco_ap(ground_truth, self._results, "segm"),
        }


def coco_ap(ground_truth, results, iou_type):
    """Scores COCO results against COCO instance ground truth, with pycocotools.

    Args:
        ground_truth: dict `images`, `annotations`, `categories`, as in a COCO instance file.
        results: list of dicts `image_id`, `category_id`, `score` and `bbox` (xywh) or
            `segmentation` (RLE).
        iou_type: `"bbox"` or `"segm"`.

    Returns:
        dict, fractions: `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`. One that
        no ground truth bears on is None.

    Raises:
        DataError: if a result is of an image that the ground truth lacks.
    """
    known = {image["id"] for image in ground_truth["images"]}
    foreign = {result["image_id"] for result in results} - known
    if foreign:
        raise DataError(f"Results must be of the images of the ground truth. Received: {foreign}")
    # Areas come from the mask for masks, from the box for boxes; pycocotools' own reader takes the
    # box's for both as soon as a result has both. It also holds annotation 0 for unmatched.
    detections = []
    for result in results:
        if iou_type == "segm":
            area = float(mask_api.area(result["segmentation"]))
        else:
            area = result["bbox"][2] * result["bbox"][3]
        detections.append({**result, "area": area, "iscrowd": 0})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _coco(ground_truth, ground_truth["annotations"]),
            _coco(ground_truth, detections),
            iou_type,
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = evaluation.stats[: len(METRICS)]
    return {
        name: float(value) if value >= 0 else None
        for name, value in zip(METRICS, stats, strict=True)
    }


def instance_results(image_id, boxes, scores, category_ids, mask_probs, image_size):
    """Turns detections into COCO results.

    Args:
        image_id: int or str.
        boxes: float32 `[D, 4]`, yxyx, pixels of the image.
        scores: float32 `[D]`.
        category_ids: int `[D]`, dataset ids.
        mask_probs: float32 `[D, 28, 28]`, each in the frame of its box.
        image_size: (H, W).

    Returns:
        list of D dicts `image_id`, `category_id`, `bbox` (xywh), `score`, `segmentation` (RLE with
        text counts), ready for JSON.
    """
    results = []
    for box, score, category_id, probs in zip(boxes, scores, category_ids, mask_probs, strict=True):
        y1, x1, y2, x2 = (float(value) for value in box)
        rle = mask_api.encode(paste_mask(probs, box, image_size))
        results.append(
            {
                "image_id": image_id,
                "category_id": int(category_id),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(score),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    return results


def paste_mask(mask_prob, box, image_size):
    """Pastes one mask into its box: `ops.masks.paste_masks` at 0.5, at the cost of the box alone.

    Args:
        mask_prob: float32 `[h, w]`, in [0, 1].
        box: float32 `[4]`, yxyx, pixels of the image.
        image_size: (H, W).

    Returns:
        uint8 `[H, W]`, 0 or 1, in Fortran order, as pycocotools wants it.
    """
    mask = np.zeros(image_size, np.uint8, order="F")
    y1, x1, y2, x2 = np.asarray(box, np.float32)
    if y2 <= y1 or x2 <= x1:
        return mask
    rows, row_weights = _window(y1, y2, mask_prob.shape[0], image_size[0])
    columns, column_weights = _window(x1, x2, mask_prob.shape[1], image_size[1])
    mask[rows, columns] = row_weights @ mask_prob @ column_weights.T >= 0.5
    return mask


def _window(start, end, num_cells, extent):
    """Returns the slice of pixels inside the box and float32 `[pixels, cells]` bilinear weights.

    Half a cell beyond the box a mask fades out, but below 0.5.
    """
    first, last = max(int(np.floor(start)), 0), min(int(np.ceil(end)), extent)
    pixels = np.arange(first, max(last, first), dtype=np.float32)
    positions = (pixels + 0.5 - start) / (end - start) * num_cells - 0.5
    distances = np.abs(positions[:, None] - np.arange(num_cells, dtype=np.float32))
    return slice(first, max(last, first)), np.maximum(1 - distances, 0)


def _coco(ground_truth, annotations):
    coco = COCO()
    coco.dataset = {
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco
