"""Reading Cityscapes, as published and as converted to COCO's panoptic format."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
from typing import Literal

import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes_labels import FIRST_INSTANCE_ID, LABELS
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.images import read_label_png, write_panoptic_png
from tf_panoptic_fpn.formats.records import (
    ImageRecord,
    LazyRecords,
    PanopticSplit,
    Segment,
    check_files,
    few,
)
from tf_panoptic_fpn.formats.segment_map import tight_boxes, unique_ids
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Path, setting

# The classes that are evaluated; the other labels are void.
CATEGORIES = CategoryTable(
    tuple(
        Category(label_id, label.name, label.has_instances, label.color)
        for label_id, label in enumerate(LABELS)
        if not label.is_ignored
    )
)
_IMAGE_ENDING = "_leftImg8bit.png"
_MAP_ENDING = "_gtFine_instanceIds.png"


class CityscapesSplit(SplitConfig):
    """Cityscapes as published, or as cityscapesScripts convert it to COCO panoptic."""

    alternatives = ({"images", "label_dir"}, {"images", "panoptic_json", "panoptic_dir"})

    format: Literal["cityscapes"] = "cityscapes"
    images: Path = setting("", "a split of leftImg8bit/")
    label_dir: Path = setting("", "the split of gtFine/ with its *_instanceIds.png")
    panoptic_json: Path = setting("", "the converted JSON, in place of label_dir")
    panoptic_dir: Path = setting("", "the folder of its PNGs")

    def read(self, root, skipped=None):
        """Reads the split, see `read_cityscapes` and `read_cityscapes_panoptic`."""
        paths = self.paths(root)
        if self.label_dir:
            return read_cityscapes(paths["images"], paths["label_dir"])
        return read_cityscapes_panoptic(
            paths["images"], paths["panoptic_json"], paths["panoptic_dir"], skipped
        )


def read_cityscapes(images_dir, label_dir):
    """Reads a split of Cityscapes as published.

    The values of `*_gtFine_instanceIds.png` are label ids, or 1000 x label id + number for an
    instance; a thing's label id alone is a group of it, and becomes a crowd. The maps
    `*_labelIds.png` hold nothing more and are not read.

    Args:
        images_dir: e.g. `leftImg8bit/train`, with `CITY/*_leftImg8bit.png`.
        label_dir: e.g. `gtFine/train`, with `CITY/*_gtFine_instanceIds.png`.

    Returns:
        A `PanopticSplit`, in the order of the paths; ids of images are as in `*_leftImg8bit.png`.
        The map is read each time that a record is asked for.

    Raises:
        DataError: if there is no image, or an image or a map is missing; from a record, if its map
            cannot be read or has an unknown label.
    """
    names = _names(images_dir, _IMAGE_ENDING) | _names(label_dir, _MAP_ENDING)
    if not names:
        raise DataError(f"{images_dir}: the folder has no images CITY/*{_IMAGE_ENDING}")
    records = [
        ImageRecord(
            image_id=name.rsplit("/")[-1],
            file_name=name + _IMAGE_ENDING,
            image_path=os.path.join(images_dir, name + _IMAGE_ENDING),
            panoptic_path=os.path.join(label_dir, name + _MAP_ENDING),
            height=0,
            width=0,
            segments=(),
            map_format="grey",
        )
        for name in sorted(names)
    ]
    check_files("image", [record.image_path for record in records], label_dir)
    check_files("instance map", [record.panoptic_path for record in records], images_dir)
    return PanopticSplit(CATEGORIES, LazyRecords(records, _with_segments))


def read_cityscapes_panoptic(images_dir, panoptic_json, panoptic_dir, skipped=None):
    """Reads a split of Cityscapes whose maps were converted by cityscapesScripts, or by
    `convert_cityscapes`.

    Args:
        images_dir: as in `read_cityscapes`. Images are found by their ids, since the file names in
            the JSON of cityscapesScripts are not those of the files.
        panoptic_json, panoptic_dir: e.g. `gtFine/cityscapes_panoptic_train.json` and the folder of
            that name; its categories have label ids or train ids.
        skipped: see `read_coco_panoptic`.

    Returns:
        A `PanopticSplit`.

    Raises:
        DataError: as `read_coco_panoptic`.
    """
    return read_coco_panoptic(images_dir, panoptic_json, panoptic_dir, skipped, _published_name)


def convert_cityscapes(images_dir, label_dir, panoptic_json, panoptic_dir):
    """Writes a split of Cityscapes in COCO's panoptic format, as cityscapesScripts does.

    Segments keep the ids of the published maps and categories are label ids. Unlike there, the
    file names of images in the JSON are those of the files, `CITY/*_leftImg8bit.png`.

    Args:
        images_dir, label_dir: see `read_cityscapes`.
        panoptic_json: the JSON to write; it must not exist.
        panoptic_dir: the folder of PNGs to write.

    Raises:
        DataError: as `read_cityscapes`, or if the JSON exists or cannot be written.

    Reference: `preparation/createPanopticImgs.py` of cityscapesScripts.
    """
    if os.path.exists(panoptic_json):
        raise DataError(f"{panoptic_json}: exists already")
    split = read_cityscapes(images_dir, label_dir)
    try:
        os.makedirs(panoptic_dir, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            work = pool.map(lambda record: _convert(record, panoptic_dir), split.images.records)
            pairs = list(tqdm(work, "convert", len(split.images), unit="image"))
        tree = {
            "images": [image for image, _ in pairs],
            "annotations": [annotation for _, annotation in pairs],
            "categories": split.categories.to_coco(),
        }
        unfinished = f"{panoptic_json}.unfinished"
        pathlib.Path(unfinished).write_text(json.dumps(tree), encoding="utf-8")
        os.replace(unfinished, panoptic_json)
    except OSError as error:
        path = error.filename or panoptic_dir
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _names(folder, ending):
    """Set of the paths in a folder that end so, without the ending."""
    found = pathlib.Path(folder).rglob(f"*{ending}")
    return {path.relative_to(folder).as_posix().removesuffix(ending) for path in found}


def _published_name(image_id, _):
    return f"{str(image_id).split('_')[0]}/{image_id}{_IMAGE_ENDING}"


def _with_segments(record):
    return _annotated(record, read_label_png(record.panoptic_path))


def _annotated(record, values):
    """A record with its size, segments and void values, from its map int [H, W]."""
    segments, void_values, unknown = [], [], []
    for value in unique_ids(values).tolist():
        label = value if value < FIRST_INSTANCE_ID else value // FIRST_INSTANCE_ID
        category = CATEGORIES.by_id.get(label)
        if category is not None:
            segments.append(
                Segment(value + 1, label, category.is_thing and value < FIRST_INSTANCE_ID)
            )
        elif label < len(LABELS):
            void_values.append(value)
        else:
            unknown.append(value)
    if unknown:
        raise DataError(f"{record.panoptic_path}: the map holds unknown labels: {few(unknown)}")
    height, width = values.shape
    return dataclasses.replace(
        record,
        height=height,
        width=width,
        segments=tuple(segments),
        void_values=tuple(void_values),
    )


def _convert(record, panoptic_dir):
    """Writes the PNG of one image; returns its entries in `images` and `annotations`."""
    values = read_label_png(record.panoptic_path)
    record = _annotated(record, values)
    ids = np.where(np.isin(values, record.void_values), 0, values)
    segments = []
    boxes, areas = tight_boxes(ids, [segment.id - 1 for segment in record.segments])
    for segment, (y1, x1, y2, x2), area in zip(record.segments, boxes, areas, strict=True):
        segments.append(
            {
                "id": segment.id - 1,
                "category_id": segment.category_id,
                "area": int(area),
                "bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
                "iscrowd": int(segment.is_crowd),
            }
        )
    png_name = f"{record.image_id}_gtFine_panoptic.png"
    write_panoptic_png(ids, os.path.join(panoptic_dir, png_name))
    image = {
        "id": record.image_id,
        "width": record.width,
        "height": record.height,
        "file_name": record.file_name,
    }
    annotation = {"image_id": record.image_id, "file_name": png_name, "segments_info": segments}
    return image, annotation
