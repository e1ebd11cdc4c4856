"""Reading COCO instance files for the metrics: ground truth and results."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_instances import CocoInstances
from tf_panoptic_fpn.formats.coco_json import Fields, is_number
from tf_panoptic_fpn.formats.json_file import read_json
from tf_panoptic_fpn.garbage_collection import without_collection
from tf_panoptic_fpn.masks.rle import (
    MaskError,
    encode_segmentation,
    mask_area,
    mask_box,
    pixels_of_texts,
)
from tf_panoptic_fpn.messages import written

_CHUNK = 500  # masks whose run lengths are checked at once


@without_collection()
def read_ground_truth(path: str | os.PathLike, needs_masks: bool) -> dict[str, list]:
    """Reads and checks a COCO instance file.

    Args:
        path: JSON file with `images`, `annotations`, `categories`.
        needs_masks: bool, whether each annotation must have a `segmentation`; else this is not
            read where a `bbox` is there.

    Returns:
        dict of the three; each annotation has `iscrowd`, `area` and `bbox` and, if needed,
        `segmentation` as RLE. An area or a box that is left out is that of the mask.

    Raises:
        DataError: if the file cannot be read, has no image, or an entry lacks a key or contradicts
            another.
    """
    file = CocoInstances(path, things_only=False, opens_images=False)
    annotations = []
    for image_id in file.images:
        for entry, instance in file.entries_of_image(image_id, needs_masks):
            if instance is None:  # a broken rule, at which this reader stops
                continue
            rle, box = instance.rle, instance.bbox_xywh
            if rle is not None:
                box = box or mask_box(rle)
            elif box is None:
                raise DataError(
                    f"{path}: annotation {instance.id} (image {image_id}): the key `bbox` is "
                    f"missing. Received: {written(sorted(entry))}"
                )
            area = instance.area
            if area is None:
                area = box[2] * box[3] if rle is None else mask_area(rle)
            annotations.append(
                {
                    "id": instance.id,
                    "image_id": image_id,
                    "category_id": instance.category_id,
                    "iscrowd": int(instance.is_crowd),
                    "area": area,
                    "bbox": list(box),
                    **({} if rle is None else {"segmentation": rle}),
                }
            )
    return {
        "images": [
            {"id": image_id, "height": height, "width": width}
            for image_id, (_, height, width) in file.images.items()
        ],
        "annotations": annotations,
        "categories": file.categories.to_coco(),
    }


@without_collection()
def read_results(
    path: str | os.PathLike, ground_truth: Mapping[str, list], needs_masks: bool
) -> list[dict[str, Any]]:
    """Reads and checks COCO instance results.

    Args:
        path: JSON file, a list of results.
        ground_truth: dict, as `read_ground_truth` returns it.
        needs_masks: bool, whether each result must have a `segmentation`; else a `bbox` will do.

    Returns:
        list of dicts, for `coco_ap`.

    Raises:
        DataError: if the file cannot be read, or a result lacks a key, is of an image or category
            that the ground truth lacks, or has a mask of another size; names the image.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    fields, results = Fields(path, kind="a result"), []
    entries = read_json(path, list)
    rles = _plain_rles(entries, sizes) if needs_masks else [None] * len(entries)
    for number, (entry, rle) in enumerate(zip(entries, rles, strict=True)):
        fields.place = f"result {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {fields.place}: must be an object. Received: {entry!r:.80}")
        image_id = fields.known_image(entry, sizes)
        fields.place = f"result {number} (image {image_id})"
        result = {
            "image_id": image_id,
            "category_id": fields.known_category(entry, categories),
            "score": _score(entry, fields),
        }
        box, _ = fields.box(entry)
        if box is not None:
            result["bbox"] = list(box)
        if needs_masks or (box is None and entry.get("segmentation")):
            result["segmentation"] = rle or _mask(entry, sizes[image_id], fields)
        elif box is None:
            fields.add("entry", f"the key `bbox` is missing. Received: {written(sorted(entry))}")
        results.append(result)
    return results


@without_collection()
def count_doubled(results: Sequence[Mapping[str, Any]]) -> int:
    """Counts the results that repeat another one of the list in full.

    Args:
        results: list of dicts, as `read_results` returns them.

    Returns:
        int; above 0 where a file was joined with itself.
    """
    distinct = {
        (
            result["image_id"],
            result["category_id"],
            result["score"],
            tuple(result.get("bbox", ())),
            result.get("segmentation", {}).get("counts"),
        )
        for result in results
    }
    return len(results) - len(distinct)


def _score(entry: Mapping[str, Any], fields: Fields) -> float:
    if "score" not in entry:
        fields.add("entry", f"the key `score` is missing. Received: {written(sorted(entry))}")
    if not is_number(entry["score"]):
        text = f"`score` must be a number. Received: {written(entry['score'])}"
        fields.add("entry", text)
    return entry["score"]


def _plain_rles(
    entries: Sequence[Any], sizes: Mapping[int | str, tuple[int, int]]
) -> list[dict[str, Any] | None]:
    """The mask of each entry whose run lengths are well-formed text, as nearly all are, else None.

    This is for speed alone: what is not plain may be good all the same, which `_mask` tells.
    """
    rles: list[dict[str, Any] | None] = []
    for start in range(0, len(entries), _CHUNK):
        chunk = [_text_rle(entry, sizes) for entry in entries[start : start + _CHUNK]]
        pixels = pixels_of_texts([rle["counts"] for rle in chunk if rle is not None])
        sums = iter(()) if pixels is None else iter(pixels.tolist())
        rles += [
            rle if rle is not None and next(sums, None) == math.prod(rle["size"]) else None
            for rle in chunk
        ]
    return rles


def _text_rle(entry: Any, sizes: Mapping[int | str, tuple[int, int]]) -> dict[str, Any] | None:
    mask = entry.get("segmentation") if isinstance(entry, dict) else None
    if not isinstance(mask, dict) or type(entry.get("image_id")) not in (int, str):
        return None
    size, counts = sizes.get(entry["image_id"]), mask.get("counts")
    if size is None or mask.get("size") != [*size] or type(counts) is not str:
        return None
    return {"size": [*size], "counts": counts.encode()} if counts and counts.isascii() else None


def _mask(entry: Mapping[str, Any], size: tuple[int, int], fields: Fields) -> dict[str, Any] | None:
    if "segmentation" not in entry:
        text = f"the key `segmentation` is missing. Received: {written(sorted(entry))}"
        fields.add("entry", text)
    try:
        return encode_segmentation(
            entry["segmentation"], size, lambda text: fields.add("part", text)
        )
    except MaskError as error:
        fields.add(error.rule, str(error))
        return None
