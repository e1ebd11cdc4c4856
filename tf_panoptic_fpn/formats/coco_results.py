"""Reading COCO instance files: ground truth and results."""

import math

import numpy as np
from pycocotools import mask as mask_api

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.json_tree import read_json


def read_ground_truth(path, needs_masks):
    """Reads and checks a COCO instance file.

    Args:
        path: JSON file with `images`, `annotations`, `categories`.
        needs_masks: bool, whether each annotation must have a `segmentation`; else this is not read
            and a `bbox` must be there.

    Returns:
        dict of the three; each annotation has `iscrowd` and, if needed, `segmentation` as RLE.

    Raises:
        DataError: if the file cannot be read, has no image, or an entry lacks a key or contradicts
            another.
    """
    tree = read_json(path, dict)
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree.get(key), list):
            raise DataError(f"{path}: `{key}` must be a list")
    if not tree["images"]:
        raise DataError(f"{path}: the data set has no images")
    table = CategoryTable.from_coco(tree["categories"], file=str(path))
    sizes = {}
    for image in tree["images"]:
        _check_keys(image, ("id", "height", "width"), f"{path}: an image")
        _check_id(image, f"{path}: an image")
        if image["id"] in sizes:
            raise DataError(f"{path}: image ids must be unique. Received twice: {image['id']}")
        sizes[image["id"]] = image["height"], image["width"]
    annotations, seen = [], set()
    for annotation in tree["annotations"]:
        _check_keys(annotation, ("id",), f"{path}: an annotation")
        _check_id(annotation, f"{path}: an annotation")
        where = f"{path}: annotation {annotation['id']}"
        if annotation["id"] in seen:
            raise DataError(f"{where}: the id occurs twice")
        seen.add(annotation["id"])
        shape = "segmentation" if needs_masks else "bbox"
        keys = ("image_id", "category_id", "area", shape)
        where = _check_entry(annotation, keys, sizes, table.by_id, where)
        annotation = {**annotation, "iscrowd": int(bool(annotation.get("iscrowd", 0)))}
        if needs_masks:
            size = sizes[annotation["image_id"]]
            annotation["segmentation"] = _to_rle(annotation["segmentation"], size, where)
        annotations.append(annotation)
    return {**tree, "annotations": annotations}


def read_results(path, ground_truth, needs_masks):
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
    results = []
    for number, result in enumerate(read_json(path, list)):
        where = f"{path}: result {number}"
        shape = "segmentation" if needs_masks or "bbox" not in result else "bbox"
        keys = ("image_id", "category_id", "score", shape)
        where = _check_entry(result, keys, sizes, categories, where)
        result = {key: result[key] for key in (*keys, "bbox") if key in result}
        if shape == "segmentation":
            size = sizes[result["image_id"]]
            result["segmentation"] = _to_rle(result["segmentation"], size, where)
        results.append(result)
    return results


def count_doubled(results):
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


def _check_entry(entry, keys, sizes, categories, where):
    """Checks what annotations and results share; returns `where` with the image's id."""
    _check_keys(entry, keys, where)
    where = f"{where} (image {entry['image_id']})"
    if not isinstance(entry["image_id"], (int, str)) or entry["image_id"] not in sizes:
        raise DataError(f"{where}: the ground truth does not list this image")
    if not isinstance(entry["category_id"], int) or entry["category_id"] not in categories:
        raise DataError(f"{where}: unknown category id {entry['category_id']}")
    for key in ("area", "score"):
        if key in entry and not _is_number(entry[key]):
            raise DataError(f"{where}: `{key}` must be a number. Received: {entry[key]!r}")
    box = entry.get("bbox", [0] * 4)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(f"{where}: `bbox` must be 4 numbers, x, y, width, height. Received: {box}")
    return where


def _check_keys(entry, keys, where):
    if not isinstance(entry, dict):
        raise DataError(f"{where}: must be an object. Received: {entry!r}")
    missing = [key for key in keys if key not in entry]
    if missing:
        raise DataError(f"{where}: the key `{missing[0]}` is missing. Received: {sorted(entry)}")


def _check_id(entry, where):
    if not isinstance(entry["id"], (int, str)):
        raise DataError(f"{where}: `id` must be a number or text. Received: {entry['id']!r}")


def _is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _to_rle(segmentation, size, where):
    """Compressed RLE of polygons or of any RLE, for an image of `size` (H, W)."""
    try:
        if isinstance(segmentation, list):
            rle = mask_api.merge(mask_api.frPyObjects(segmentation, *size))
        elif isinstance(segmentation["counts"], list):
            rle = mask_api.frPyObjects(segmentation, *segmentation["size"])
        else:
            rle = segmentation
        rle_size, num_pixels = tuple(rle["size"]), _count_pixels(rle["counts"])
    # pycocotools raises whatever it comes upon.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: the mask cannot be decoded: {reason}") from None
    if rle_size != size:
        raise DataError(
            f"{where}: mask and image must have one size (HxW). Received: "
            f"{'x'.join(map(str, rle_size))} and {'x'.join(map(str, size))}"
        )
    if num_pixels != size[0] * size[1]:
        raise DataError(
            f"{where}: the runs of a mask must add up to its {size[0] * size[1]} pixels, or it is "
            f"cut short. Received: {num_pixels}"
        )
    return rle


def _count_pixels(counts):
    """Sum of the runs of a compressed RLE, which pycocotools does not check.

    A run is one or more characters of 5 bits, low ones first, bit 6 set where more follow; from the
    fourth on it is the difference to the run two before, sign in the highest bit.
    """
    code = np.frombuffer(counts if isinstance(counts, bytes) else counts.encode(), np.uint8)
    code = code.astype(np.int64) - 48
    is_last = (code & 32) == 0
    if not code.size or not is_last[-1] or code.min() < 0 or code.max() > 63:
        raise ValueError("not a run-length code")
    starts = np.append(0, np.flatnonzero(is_last)[:-1] + 1)
    lengths = np.diff(starts, append=code.size)
    shifts = 5 * (np.arange(code.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((code & 31) << shifts, starts)
    runs -= (code[is_last] & 16) << 1 + 5 * (lengths - 1)
    # Odd and even runs are the running sums of their differences; the third run is no difference.
    for first in (1, 2):
        runs[first::2] = runs[first::2].cumsum()
    if runs.min() < 0:
        raise ValueError("a run is negative")
    return int(runs.sum())
