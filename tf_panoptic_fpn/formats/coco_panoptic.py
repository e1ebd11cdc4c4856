"""Reading data sets in the COCO panoptic format."""

import os
from typing import Literal

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.json_file import field, list_entries, positive, read_lists
from tf_panoptic_fpn.formats.records import ImageRecord, PanopticSplit, Segment, check_files, few
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Path, setting

_MOST_PIXELS = (1 << 31) - 1  # that pycocotools' run lengths can count


class CocoPanopticSplit(SplitConfig):
    """COCO panoptic: a JSON of segments and a folder of PNGs whose colours are their ids."""

    alternatives = (
        {"images", "panoptic_json", "panoptic_dir"},
        {"images", "panoptic_json", "panoptic_dir", "instances_json"},
    )

    format: Literal["coco_panoptic"] = "coco_panoptic"
    images: Path = setting("", "folder of the images")
    panoptic_json: Path = setting("", "COCO panoptic JSON")
    panoptic_dir: Path = setting("", "folder of its PNGs")
    instances_json: Path = setting(
        "", "COCO instances JSON, for the instances in place of the PNGs"
    )

    def read(self, root, skipped=None):
        """Reads the split, see `read_coco_panoptic` and `with_coco_instances`."""
        # The reader of instances imports this file.
        from tf_panoptic_fpn.formats.coco_instances import with_coco_instances

        paths = self.paths(root)
        split = read_coco_panoptic(
            paths["images"], paths["panoptic_json"], paths["panoptic_dir"], skipped
        )
        if not self.instances_json:
            return split
        return with_coco_instances(split, paths["instances_json"], skipped)


def read_coco_panoptic(images_dir, panoptic_json, panoptic_dir, skipped=None, rename=None):
    """Reads the JSON of a COCO panoptic split and checks that it and its folders hold together.

    No image is opened here: `load_segments` compares what the files hold with the JSON.

    Args:
        images_dir: folder of the images.
        panoptic_json: file with `images`, `annotations` (each with `segments_info`), `categories`.
        panoptic_dir: folder of the panoptic PNGs.
        skipped: a list that takes one line for each image that is left out because its annotation
            has no segments; by default that is an error.
        rename: function of an image's id and its file name in the JSON; returns the file's name in
            `images_dir`. By default that of the JSON.

    Returns:
        A `PanopticSplit` of one or more images.

    Raises:
        DataError: if the JSON cannot be read, lacks a key or contradicts itself, or a file that it
            lists is missing.
    """
    lists = read_lists(panoptic_json, ("images", "categories"))
    categories = category_table(lists["categories"], panoptic_json)
    images = images_by_id(lists["images"], panoptic_json)
    if rename is not None:
        images = {key: (rename(key, name), *size) for key, (name, *size) in images.items()}
    annotations = _annotations_by_image(images, categories.by_id, panoptic_json, skipped)
    records = [
        ImageRecord(
            image_id=image_id,
            file_name=file_name,
            image_path=os.path.join(images_dir, file_name),
            panoptic_path=os.path.join(panoptic_dir, annotations[image_id][0]),
            height=height,
            width=width,
            segments=annotations[image_id][1],
        )
        for image_id, (file_name, height, width) in images.items()
        if annotations[image_id][1]
    ]
    if not records:
        raise DataError(f"no image can be used: {skipped[0]}")
    check_files("image", [record.image_path for record in records], panoptic_json)
    check_files("panoptic map", [record.panoptic_path for record in records], panoptic_json)
    return PanopticSplit(categories, tuple(records))


def category_table(entries, file):
    """Returns the `CategoryTable` of the `categories` of a COCO JSON.

    Raises:
        DataError: naming the file, if there is none or one breaks a rule.
    """
    if not entries:
        raise DataError(f"{file}: the data set has no categories")
    return CategoryTable.from_coco(entries, file=str(file))


def images_by_id(entries, file):
    """Checks the `images` of a COCO JSON.

    Args:
        entries: list of dicts.
        file: where they were read, for the message.

    Returns:
        Dict, in their order: image id -> `(file_name, height, width)`.

    Raises:
        DataError: if there is none, or one lacks a key or has the id of another.
    """
    if not entries:
        raise DataError(f"{file}: the data set has no images")
    images = {}
    for entry in entries:
        image_id = field(entry, "id", (int, str), file)
        if image_id in images:
            raise DataError(f"{file}: image ids must be unique. Received twice: {image_id}")
        file_name = field(entry, "file_name", str, file)
        height, width = positive(entry, "height", file), positive(entry, "width", file)
        if height * width > _MOST_PIXELS:
            raise DataError(
                f"{file}: {file_name}: an image can have {_MOST_PIXELS} pixels at most. "
                f"Received: {height}x{width}"
            )
        images[image_id] = (file_name, height, width)
    return images


def _annotations_by_image(images, categories, file, skipped):
    """Dict: image id -> (name of the PNG, segments) of its only annotation.

    Only if `skipped` is a list can there be no segments; it takes a line then.
    """
    by_image = {}
    for annotation, _ in list_entries(file, "annotations"):
        image_id = field(annotation, "image_id", (int, str), file)
        if image_id not in images:
            raise DataError(
                f"{file}: an annotation is for image id {image_id}, which is not listed"
            )
        if image_id in by_image:
            raise DataError(f"{file}: image id {image_id} has more than one annotation")
        png_name = field(annotation, "file_name", str, file)
        file_name = images[image_id][0]
        segments = _segments(annotation, categories, file_name, file)
        if not segments:
            message = f"{file}: {file_name}: the annotation has no segments"
            if skipped is None:
                raise DataError(message)
            skipped.append(message)
        by_image[image_id] = (png_name, segments)
    bare = [image_id for image_id in images if image_id not in by_image]
    if bare:
        raise DataError(f"{file}: images without annotation: {few(bare)}")
    return by_image


def _segments(annotation, categories, file_name, file):
    entries = field(annotation, "segments_info", list, file)
    if not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{file}: `segments_info` must be a list of objects")
    segments, seen = [], set()
    for entry in entries:
        segment_id = field(entry, "id", int, file)
        category_id = field(entry, "category_id", int, file)
        if not 0 < segment_id < 1 << 24:
            raise DataError(
                f"{file}: {file_name}: a segment id must be in 1..2**24-1. Received: {segment_id}"
            )
        if segment_id in seen:
            raise DataError(f"{file}: {file_name}: the segment id {segment_id} occurs twice")
        if category_id not in categories:
            raise DataError(f"{file}: {file_name}: unknown category id {category_id}")
        seen.add(segment_id)
        bbox = entry.get("bbox")
        if bbox is not None and not isinstance(bbox, list):
            raise DataError(f"{file}: {file_name}: `bbox` must be a list. Received: {bbox!r:.40}")
        segments.append(
            Segment(
                id=segment_id,
                category_id=category_id,
                is_crowd=bool(entry.get("iscrowd", 0)),
                area=entry.get("area"),
                bbox_xywh=None if bbox is None else tuple(bbox),
            )
        )
    return tuple(segments)
