"""Reading COCO instances JSON: polygons, run-length encoded masks and crowds."""

import array
import dataclasses
import json
import os
from typing import Literal

import numpy as np

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_panoptic import category_table, images_by_id
from tf_panoptic_fpn.formats.json_file import field, list_entries, read_lists
from tf_panoptic_fpn.formats.records import (
    ImageRecord,
    Instance,
    LazyRecords,
    PanopticSplit,
    check_files,
    few,
)
from tf_panoptic_fpn.formats.rle import encode_segmentation, mask_area
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Path, setting


class CocoInstancesSplit(SplitConfig):
    """COCO instances: a JSON of polygons and RLEs. Instances only."""

    tasks = ("instance",)

    format: Literal["coco_instances"] = "coco_instances"
    images: Path = setting("", "folder of the images")
    instances_json: Path = setting("", "COCO instances JSON")

    def read(self, root, skipped=None):
        """Reads the split, see `read_coco_instances`."""
        paths = self.paths(root)
        return read_coco_instances(paths["images"], paths["instances_json"], skipped)


def read_coco_instances(images_dir, instances_json, skipped=None):
    """Reads a split that has instances only: there is no map, and all semantic labels are void.

    Args:
        images_dir: folder of the images.
        instances_json: file with `images`, `annotations` (each with `image_id`, `category_id` and
            `segmentation`; `id`, `bbox`, `area` and `iscrowd` may be left out) and `categories`
            (without `isthing`, a category is a thing; annotations of stuff are no instances).
        skipped: a list that takes one line for each annotation that is left out because its mask
            or box breaks a rule; by default that is an error.

    Returns:
        A `PanopticSplit` without panoptic maps. Masks are decoded each time that a record is
        asked for.

    Raises:
        DataError: if the JSON cannot be read, lacks a key or contradicts itself, or an image that
            it lists is missing; from a record, if an annotation's mask breaks a rule.
    """
    instances = CocoInstances(instances_json, skipped)
    records = [
        ImageRecord(
            image_id=image_id,
            file_name=file_name,
            image_path=os.path.join(images_dir, file_name),
            panoptic_path="",
            height=height,
            width=width,
            segments=(),
        )
        for image_id, (file_name, height, width) in instances.images.items()
    ]
    check_files("image", [record.image_path for record in records], instances_json)
    images = LazyRecords(records, instances.added_to)
    return PanopticSplit(instances.categories, images, has_panoptic=False)


def with_coco_instances(split, instances_json, skipped=None):
    """Takes the instances of a panoptic split from a COCO instances JSON, as detectron2 does.

    Args:
        split: a `PanopticSplit`.
        instances_json, skipped: see `read_coco_instances`. Its images, found by their ids, must
            include those of the split; annotations of the split's stuff are no instances.

    Returns:
        A `PanopticSplit`; segments and maps are those of `split`.

    Raises:
        DataError: as `read_coco_instances`, or if the two contradict each other.
    """
    instances = CocoInstances(instances_json, skipped, split.categories)
    for record in split.images:
        listed = instances.images.get(record.image_id)
        if listed is None:
            raise DataError(
                f"{instances_json}: image id {record.image_id} of the panoptic JSON is missing"
            )
        if listed[1:] != (record.height, record.width):
            raise DataError(
                f"{instances_json}: {record.file_name}: the size must be "
                f"{record.height}x{record.width} (HxW), as in the panoptic JSON. "
                f"Received: {listed[1]}x{listed[2]}"
            )
    return dataclasses.replace(split, images=LazyRecords(split.images, instances.added_to))


class CocoInstances:
    """The annotations of a COCO instances JSON, found by image and decoded when asked for.

    Attributes:
        categories: `CategoryTable`.
        images: dict: image id -> `(file_name, height, width)`.
    """

    def __init__(self, path, skipped=None, categories=None):
        """Reads the JSON without its masks.

        Args:
            path: the JSON.
            skipped: see `read_coco_instances`.
            categories: `CategoryTable` in place of the file's.
        """
        self._path = path
        self._skipped = skipped
        lists = read_lists(path, ("images", "categories"))
        own_categories = category_table(lists["categories"], path)
        self.categories = categories or own_categories
        self.images = images_by_id(lists["images"], path)
        self._position = {image_id: i for i, image_id in enumerate(self.images)}
        self._scan()

    def added_to(self, record):
        """Returns an `ImageRecord` with the instances of its image."""
        return dataclasses.replace(record, instances=self._of_image(record.image_id))

    def _scan(self):
        """Finds the place of each annotation in the file, and checks all but the masks."""
        images, ids, spans = (array.array("q") for _ in range(3))
        boxes = array.array("d")
        categories = self.categories.by_id
        for entry, span in list_entries(self._path, "annotations"):
            image_id = field(entry, "image_id", (int, str), self._path)
            if image_id not in self._position:
                raise DataError(
                    f"{self._path}: an annotation is for image id {image_id}, which is not listed"
                )
            category_id = field(entry, "category_id", int, self._path)
            if category_id not in categories:
                name = self.images[image_id][0]
                raise DataError(f"{self._path}: {name}: unknown category id {category_id}")
            if not categories[category_id].is_thing:
                continue
            images.append(self._position[image_id])
            ids.append(_annotation_id(entry, len(ids), self._path))
            spans.extend(span)
            boxes.extend(_box(entry))
        images, ids = (np.array(values, np.int64) for values in (images, ids))
        _check_unique(ids, self._path)
        boxes = np.array(boxes).reshape(-1, 4)
        valid = np.isfinite(boxes).all(1) & (boxes[:, 2:] >= 0).all(1)
        names = [file_name for file_name, _, _ in self.images.values()]
        for i in np.flatnonzero(~valid):
            self._reject(
                f"{self._path}: {names[images[i]]}: annotation {ids[i]}: `bbox` must be four "
                f"finite numbers, width and height not negative"
            )
        order = np.argsort(images[valid], kind="stable")
        self._spans = np.array(spans, np.int64).reshape(-1, 2)[valid][order]
        self._ids = ids[valid][order]
        self._offsets = np.searchsorted(images[valid][order], np.arange(len(self.images) + 1))

    def _of_image(self, image_id):
        file_name, *size = self.images[image_id]
        first, last = self._offsets[self._position[image_id] :][:2]
        if first == last:
            return ()
        instances = []
        entries = self._entries(image_id, self._spans[first:last].tolist())
        for entry, annotation_id in zip(entries, self._ids[first:last].tolist(), strict=True):
            try:
                instances.append(_instance(entry, annotation_id, size, self._skipped is None))
            except DataError as error:
                self._reject(f"{self._path}: {file_name}: annotation {annotation_id}: {error}")
        return tuple(instances)

    def _entries(self, image_id, spans):
        """Reads annotations again, from their places in the file."""
        entries = []
        try:
            with open(self._path, "rb") as file:
                for start, stop in spans:
                    file.seek(start)
                    entries.append(json.loads(file.read(stop - start)))
            unchanged = all(entry["image_id"] == image_id for entry in entries)
        except (OSError, ValueError, TypeError, KeyError):
            unchanged = False
        if not unchanged:
            raise DataError(f"{self._path}: has changed since it was opened")
        return entries

    def _reject(self, message):
        if self._skipped is None:
            raise DataError(message)
        self._skipped.append(message)


def _annotation_id(entry, number, file):
    """The `id` of an annotation, or where it has none its number in the file."""
    annotation_id = field(entry, "id", int, file) if "id" in entry else number
    if abs(annotation_id) >= 1 << 63:
        raise DataError(f"{file}: an annotation's `id` must fit 64 bits. Received: {annotation_id}")
    return annotation_id


def _box(entry):
    """The four numbers of `bbox`; zeros where there is none, NaN where it is something else."""
    box = entry.get("bbox")
    if box is None:
        return (0.0,) * 4
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        return (np.nan,) * 4
    return x, y, width, height


def _check_unique(ids, file):
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        twice = unique[counts > 1]
        raise DataError(f"{file}: annotation ids must be unique. Received twice: {few(twice)}")


def _instance(entry, annotation_id, size, may_be_empty):
    """An `Instance`; a well-formed mask without a pixel is one only if `may_be_empty`."""
    if "segmentation" not in entry:
        raise DataError("the key `segmentation` is missing")
    rle = encode_segmentation(entry["segmentation"], size)
    if not may_be_empty and not mask_area(rle):
        raise DataError("the mask has no pixel")
    area, box = entry.get("area"), entry.get("bbox")
    return Instance(
        id=annotation_id,
        category_id=entry["category_id"],
        is_crowd=bool(entry.get("iscrowd", 0)),
        area=area if isinstance(area, (int, float)) else None,
        bbox_xywh=None if box is None else tuple(map(float, box)),
        rle=rle,
    )
