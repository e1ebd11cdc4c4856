"""Reading COCO instances JSON: polygons, run-length encoded masks and crowds."""

import dataclasses
import json
import os
import struct
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import LIST, STOP, Breaches
from tf_panoptic_fpn.formats.coco_json import (
    Fields,
    annotation_place,
    category_table,
    images_by_id,
    is_plain,
)
from tf_panoptic_fpn.formats.json_file import Entry, list_entries, read_lists
from tf_panoptic_fpn.formats.records import (
    ImageRecord,
    Instance,
    LazyRecords,
    PanopticSplit,
    check_files,
)
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.masks.rle import MaskError, encode_segmentation, mask_area
from tf_panoptic_fpn.messages import written
from tf_panoptic_fpn.section import Path, setting

# What is kept of an annotation: positions of its image and category, and its place in the file.
_ROW = np.dtype("<i4, <i4, <i8, <i8, <i8, ?")
_ROW.names = ("image", "category", "id", "start", "stop", "is_crowd")
_PACK = struct.Struct("<iiqqq?").pack
# What stands for the ids of annotations that have none, or text.
_NO_ID, _TEXT = -(1 << 63), 1 - (1 << 63)


class CocoInstancesSplit(SplitConfig):
    """COCO instances: a JSON of polygons and RLEs. Instances only."""

    tasks = ("instance",)

    format: Literal["coco_instances"] = "coco_instances"
    images: Path = setting("", "folder of the images")
    instances_json: Path = setting("", "COCO instances JSON")

    def read(self, root: str | os.PathLike, breaches: Breaches | None = None) -> PanopticSplit:
        """Reads the split, see `read_coco_instances`."""
        images, instances_json = self.paths(root).values()
        return read_coco_instances(images, instances_json, breaches)


def read_coco_instances(
    images_dir: str | os.PathLike,
    instances_json: str | os.PathLike,
    breaches: Breaches | None = None,
) -> PanopticSplit:
    """Reads a split that has instances only: there is no map, and all semantic labels are void.

    Args:
        images_dir: folder of the images.
        instances_json: file with `images`, `annotations` (each with `image_id`, `category_id` and
            `segmentation`; `id`, `bbox`, `area` and `iscrowd` may be left out) and `categories`
            (without `isthing`, a category is a thing; annotations of stuff are no instances).
        breaches: by default those that stop.

    Returns:
        A `PanopticSplit` without panoptic maps. Masks are decoded each time that a record is
        asked for.

    Raises:
        DataError: if an image is missing; by the policy of `breaches` if the JSON breaks a rule,
            and from a record if a mask does.
    """
    instances = CocoInstances(instances_json, breaches)
    records = [
        ImageRecord(
            image_id=image_id,
            file_name=file_name,
            image_path=os.path.join(images_dir, file_name),
            height=height,
            width=width,
        )
        for image_id, (file_name, height, width) in instances.images.items()
    ]
    check_files("image", [record.image_path for record in records], instances_json)
    images = LazyRecords(records, instances.added_to)
    return PanopticSplit(instances.categories, images, has_panoptic=False)


def with_coco_instances(
    split: PanopticSplit, instances_json: str | os.PathLike, breaches: Breaches | None = None
) -> PanopticSplit:
    """Takes the instances of a panoptic split from a COCO instances JSON, as detectron2 does.

    Args:
        split: its segments and maps stay.
        instances_json, breaches: see `read_coco_instances`. Its images, found by their ids, must
            include those of the split; annotations of the split's stuff are no instances.

    Raises:
        DataError: as `read_coco_instances`, or if the two contradict each other.
    """
    instances = CocoInstances(instances_json, breaches, split.categories)
    for record in split.images:
        listed = instances.images.get(record.image_id)
        if listed is None:
            raise DataError(
                f"{instances_json}: image id {written(record.image_id)} of the panoptic JSON is "
                f"missing"
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
        others: dict, what else the file holds, such as `info`.
        breaches: takes what breaks a rule.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        breaches: Breaches | None = None,
        categories: CategoryTable | None = None,
        things_only: bool = True,
        opens_images: bool = True,
        corrects: bool = False,
        head: Breaches | None = None,
    ) -> None:
        """Reads the JSON without its masks.

        Args:
            path: the JSON.
            breaches: see `read_coco_instances`.
            categories: in place of the file's.
            things_only: leaves annotations of stuff alone.
            opens_images: whether an image needs a `file_name`.
            corrects: keeps annotations whose box or `iscrowd` is wrong, or that have no mask but a
                box.
            head: takes what is wrong with all but the annotations, if not `breaches`.
        """
        self._corrects = corrects
        self.path = path
        self.breaches = breaches or Breaches()
        head = head or self.breaches
        self._quiet = Fields(path, Breaches(LIST))  # of what the scan has named already
        self.others: dict[str, Any] = {}
        self.categories, self.images = CategoryTable(()), {}
        lists = read_lists(path, ("images", "categories"), head, self.others)
        if lists is not None:
            own_categories = category_table(lists["categories"], path, head)
            self.categories = categories or own_categories
            self.images = images_by_id(lists["images"], path, head, opens_images)
        self._position = {image_id: i for i, image_id in enumerate(self.images)}
        entries = () if lists is None else list_entries(path, "annotations", head)
        self._scan(entries, things_only)

    def added_to(self, record: ImageRecord) -> ImageRecord:
        """Returns an `ImageRecord` with the instances of its image."""
        return dataclasses.replace(record, instances=self.of_image(record.image_id))

    def of_image(
        self, image_id: int | str, breaches: Breaches | None = None
    ) -> tuple[Instance, ...]:
        """Returns the instances of an image; `breaches` may be others than the file's.

        Raises:
            DataError: by the policy of the breaches, if a mask breaks a rule.
        """
        pairs = self.entries_of_image(image_id, breaches=breaches)
        return tuple(i for _, i in pairs if i is not None and i.rle is not None)

    def entries_of_image(
        self, image_id: int | str, needs_masks: bool = True, breaches: Breaches | None = None
    ) -> Iterator[tuple[Entry, Instance | None]]:
        """Yields `(entry, instance)`: what the JSON holds, and its `Instance` or None.

        Unless it `needs_masks`, an instance with a box has no `rle`; nor has, for those who
        correct the file, one that has a box alone.

        Raises:
            DataError: as `of_image`.
        """
        fields = Fields(self.path, breaches or self.breaches)
        file_name, *size = self.images[image_id]
        first, last = self._offsets[self._position[image_id] :][:2]
        if first == last:
            return
        rows = self._order[first:last].tolist()
        for row, entry in zip(rows, self._entries(image_id, rows), strict=True):
            fields.place = file_name, image_id, self._id(row)
            yield entry, self._instance(row, entry, size, fields, needs_masks)

    def only_crowds(self) -> list[str]:
        """Returns the names of the categories of which every annotation is a crowd."""
        category, is_crowd = self._rows["category"], self._rows["is_crowd"]
        found = set(category[is_crowd].tolist()) - set(category[~is_crowd].tolist())
        return [self.categories.by_id[self._category_ids[i]].name for i in sorted(found)]

    def _scan(self, entries, things_only):
        """Finds the place of each annotation in the file, and checks all but the masks."""
        rows = bytearray()
        fields = Fields(self.path, self.breaches)
        by_id = self.categories.by_id
        place_of_category = {category_id: i for i, category_id in enumerate(by_id)}
        names = [file_name for file_name, _, _ in self.images.values()]
        self._texts = {}  # row -> `id`, of those that are text
        for entry, (start, stop) in entries:
            fields.place = "", entry.get("image_id"), entry.get("id")
            image_id = fields.known_image(entry, self._position)
            if image_id is None:
                continue
            image = self._position[image_id]
            fields.place = names[image], image_id, entry.get("id")
            category_id = fields.known_category(entry, by_id)
            if category_id is None or (things_only and not by_id[category_id].is_thing):
                continue
            if is_plain(entry):
                annotation_id, is_crowd = entry["id"], entry["iscrowd"]
            else:
                is_crowd, (_, is_good_box) = fields.is_crowd(entry), fields.box(entry)
                fields.area(entry)
                if (is_crowd is None or not is_good_box) and not self._corrects:
                    continue
                annotation_id = self._read_id(entry, fields, len(rows) // _ROW.itemsize)
            category = place_of_category[category_id]
            rows += _PACK(image, category, annotation_id, start, stop, bool(is_crowd))
        self._rows = np.frombuffer(rows, _ROW)
        self._order = np.argsort(self._rows["image"], kind="stable")
        ordered = self._rows["image"][self._order]
        self._offsets = np.searchsorted(ordered, np.arange(len(self.images) + 1))
        self._category_ids = list(by_id)
        self._number(names)

    def _read_id(self, entry, fields, row):
        """The `id` of an annotation; what stands for it if it is text or left out."""
        value = entry.get("id")
        if value is None:
            fields.add("no_id", "the annotation has no `id`")
            return _NO_ID
        number = value if type(value) is int else fields.annotation_id(entry)
        if isinstance(number, str):
            self._texts[row] = number
            return _TEXT
        if number is not None and abs(number) >= -_TEXT:
            text = f"an annotation's `id` must fit 64 bits. Received: {number}"
            number = fields.add("entry", text)
        return _NO_ID if number is None else number

    def _number(self, names):
        """Gives numbers to annotations without `id`, or whose `id` has occurred before."""
        ids = self._rows["id"]
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        again = (ordered[1:] == ordered[:-1]) & (ordered[1:] > _TEXT)
        doubled, seen = sorted(order[1:][again].tolist()), set()
        for row, text in self._texts.items():
            if text in seen:
                doubled.append(row)
            seen.add(text)
        image_ids = list(self.images) if doubled else ()
        for row in doubled:
            shown = self._texts.pop(row, int(ids[row]))
            image = self._rows["image"][row]
            self.breaches.add(
                "id_twice",
                annotation_place(names[image], image_ids[image], shown),
                f"annotation ids must be unique. Received twice: {written(shown)}",
                self.path,
            )
        missing = ids == _NO_ID
        missing[doubled] = True
        used = ids[~missing & (ids > _TEXT)]
        low, high = (int(used.min()), int(used.max())) if len(used) else (0, -1)
        count = int(missing.sum())
        first = high + 1 if high < 1 << 62 else low - count
        ids[missing] = np.arange(first, first + count)

    def _id(self, row):
        return self._texts[row] if row in self._texts else int(self._rows["id"][row])

    def _instance(self, row, entry, size, fields, needs_masks):
        """The `Instance` of a row; None, with a breach, if its mask breaks a rule."""
        if is_plain(entry):
            box, area, rle = tuple(entry["bbox"]), entry["area"], None
        else:
            box, area, rle = self._quiet.box(entry)[0], self._quiet.area(entry), None
        if needs_masks or (box is None and entry.get("segmentation")):
            try:
                rle = _mask(entry, box, size, fields)
            except MaskError as error:
                fields.add(error.rule, str(error))
                if error.rule != "boxes_only" or not self._corrects:
                    return None
            # Evaluation counts a well-formed mask without a pixel, as pycocotools does.
            if rle is not None and fields.breaches.policy != STOP and not mask_area(rle):
                return fields.add("empty_mask", "the mask has no pixel")
        return Instance(
            id=self._id(row),
            category_id=self._category_ids[self._rows["category"][row]],
            is_crowd=bool(self._rows["is_crowd"][row]),
            area=area,
            bbox_xywh=box,
            rle=rle,
        )

    def _entries(self, image_id, rows):
        """Reads annotations again, from their places in the file."""
        entries = []
        try:
            with open(self.path, "rb") as file:
                for start, stop in self._rows[["start", "stop"]][rows].tolist():
                    file.seek(start)
                    entries.append(json.loads(file.read(stop - start)))
            unchanged = all(
                self._quiet.known_image(entry, self._position) == image_id for entry in entries
            )
        except (OSError, ValueError, TypeError, AttributeError):
            unchanged = False
        if not unchanged:
            raise DataError(f"{self.path}: has changed since it was opened")
        return entries


def _mask(entry, box, size, fields):
    """The RLE of an annotation; raises MaskError."""
    segmentation = entry.get("segmentation")
    if box is not None and (segmentation is None or segmentation == []):
        raise MaskError("the annotation has a box and no mask", "boxes_only")
    if "segmentation" not in entry:
        raise MaskError("the key `segmentation` is missing")
    return encode_segmentation(segmentation, size, lambda text: fields.add("part", text))
