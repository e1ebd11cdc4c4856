"""Average precision of boxes, masks and boundaries of the instances of images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.metrics.coco_ap import coco_ap

FIGURES = {"bbox": "box_ap", "segm": "mask_ap", "boundary": "boundary_ap"}


class InstanceAP:
    """Streaming box, mask or boundary AP of instances; the figures are pycocotools'.

    Only run-length codes are kept; the matching comes at the end.

    Args:
        categories: `CategoryTable`; only its things are scored.
        iou_types: any of "bbox", "segm" and "boundary" (see `coco_ap`).
    """

    def __init__(
        self, categories: CategoryTable, iou_types: Sequence[str] = ("bbox", "segm")
    ) -> None:
        self.categories = categories
        self._iou_types = tuple(iou_types)
        self._images: dict[int | str, dict[str, Any]] = {}  # by image id
        self._annotations: list[dict[str, Any]] = []
        self._results: list[Mapping[str, Any]] = []

    def update(
        self,
        image_id: int | str,
        gt_ids: np.ndarray,
        gt_segments: Iterable[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds one image, of which the things of a panoptic map are the instances.

        Masks, boxes and areas of the ground truth are those of the map, where segments do not
        overlap.

        Args:
            image_id: int or str, unique.
            gt_ids: int `[H, W]`, segment id of each pixel.
            gt_segments: list of dicts `id`, `category_id` and `iscrowd` (0 if left out).
            results: COCO results of this image, as `instance_results` returns them.

        Raises:
            DataError: as `update_annotations`.
        """
        thing_ids = self.categories.thing_ids
        image_size = gt_ids.shape
        gt_ids = np.asfortranarray(gt_ids)  # the order that `encode` reads
        annotations = []
        for segment in gt_segments:
            if segment["category_id"] in thing_ids:
                rle = mask_api.encode((gt_ids == segment["id"]).view(np.uint8))
                annotations.append(
                    {
                        "category_id": segment["category_id"],
                        "iscrowd": int(segment.get("iscrowd", 0)),
                        "segmentation": rle,
                        "area": float(mask_api.area(rle)),
                        "bbox": mask_api.toBbox(rle).tolist(),
                    }
                )
        self.update_annotations(image_id, image_size, annotations, results)

    def update_annotations(
        self,
        image_id: int | str,
        image_size: tuple[int, int],
        annotations: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds one image with the instances of a COCO instance file, which may overlap.

        Args:
            image_id: int or str, unique.
            image_size: (H, W).
            annotations: list of dicts `category_id`, `iscrowd`, `segmentation` (RLE), `area` and
                `bbox` (xywh); all are of things.
            results: COCO results of this image, as `instance_results` returns them.

        Raises:
            DataError: if the image was added before, an annotation is not of a thing, a result is
                of another image, or a mask of another size.
        """
        if image_id in self._images:
            raise DataError(f"image {image_id} occurs twice")
        unknown = {a["category_id"] for a in annotations} - set(self.categories.thing_ids)
        if unknown:
            raise DataError(f"image {image_id}: annotations must be of things. Received: {unknown}")
        foreign = {result["image_id"] for result in results} - {image_id}
        if foreign:
            raise DataError(f"Results must be of image {image_id}. Received: {foreign}")
        height, width = image_size
        for entry in (*annotations, *results):
            if "segmentation" in entry and [*entry["segmentation"]["size"]] != [height, width]:
                raise DataError(
                    f"image {image_id}: masks must have the image's size, {(height, width)}. "
                    f"Received: {tuple(entry['segmentation']['size'])}"
                )
        self._images[image_id] = {"id": image_id, "height": height, "width": width}
        self._annotations += [{**annotation, "image_id": image_id} for annotation in annotations]
        self._results += results

    def merge(self, other: "InstanceAP") -> None:
        """Adds the images of another `InstanceAP` over the same categories.

        Raises:
            ValueError: if the categories differ.
            DataError: if both have the same image.
        """
        if other.categories != self.categories:
            raise ValueError("`merge` needs two metrics over the same categories")
        doubled = self._images.keys() & other._images.keys()
        if doubled:
            raise DataError(f"image {min(doubled, key=str)} occurs twice")
        self._images |= other._images
        self._annotations += other._annotations
        self._results += other._results

    def result(self) -> dict[str, Any]:
        """Returns the figures of all images so far.

        Returns:
            dict `box_ap`, `mask_ap` and `boundary_ap`, as far as they are asked for, each as
            `coco_ap` returns it; `precision_recall` is that of the masks (else of the last of
            `iou_types`) and stands beside them.
        """
        names = self.categories.unique_names
        categories = [{"id": c, "name": names[c]} for c in self.categories.thing_ids]
        ground_truth = {
            "images": list(self._images.values()),
            "annotations": self._annotations,
            "categories": categories,
        }
        figures = {
            FIGURES[iou_type]: coco_ap(ground_truth, self._results, iou_type)
            for iou_type in self._iou_types
        }
        curves = [figure.pop("precision_recall") for figure in figures.values()]
        chosen = self._iou_types.index("segm") if "segm" in self._iou_types else -1
        return {**figures, "precision_recall": curves[chosen]}


def instance_results(
    image_id: int | str,
    boxes: np.ndarray,
    scores: np.ndarray,
    category_ids: np.ndarray,
    mask_probs: np.ndarray,
    image_size: tuple[int, int],
) -> list[dict[str, Any]]:
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


def paste_mask(mask_prob: np.ndarray, box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
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
    # Column by column, the order in memory: several times as fast.
    mask.T[columns, rows] = column_weights @ (row_weights @ mask_prob).T >= 0.5
    return mask


def _window(start: float, end: float, num_cells: int, extent: int) -> tuple[slice, np.ndarray]:
    """Returns the slice of pixels inside the box and float32 `[pixels, cells]` bilinear weights.

    Half a cell beyond the box a mask fades out, but below 0.5.
    """
    first, last = max(int(np.floor(start)), 0), min(int(np.ceil(end)), extent)
    pixels = np.arange(first, max(last, first), dtype=np.float32)
    positions = (pixels + 0.5 - start) / (end - start) * num_cells - 0.5
    distances = np.abs(positions[:, None] - np.arange(num_cells, dtype=np.float32))
    return slice(first, max(last, first)), np.maximum(1 - distances, 0)
