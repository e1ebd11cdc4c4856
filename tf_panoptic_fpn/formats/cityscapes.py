"""Reading Cityscapes, as published and as converted to COCO's panoptic format."""

import dataclasses
import os
import pathlib
from typing import Literal

import numpy as np

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.cityscapes_labels import FIRST_INSTANCE_ID, LABELS
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.images import read_label_png
from tf_panoptic_fpn.formats.records import (
    ImageRecord,
    LazyRecords,
    PanopticSplit,
    Segment,
    check_files,
)
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.masks.segment_map import unique_ids
from tf_panoptic_fpn.messages import few
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

    alternatives = (
        frozenset({"images", "label_dir"}),
        frozenset({"images", "panoptic_json", "panoptic_dir"}),
    )

    format: Literal["cityscapes"] = "cityscapes"
    images: Path = setting("", "a split of leftImg8bit/")
    label_dir: Path = setting("", "the split of gtFine/ with its *_instanceIds.png")
    panoptic_json: Path = setting("", "the converted JSON, in place of label_dir")
    panoptic_dir: Path = setting("", "the folder of its PNGs")

    def read(self, root: str | os.PathLike, breaches: Breaches | None = None) -> PanopticSplit:
        """Reads the split, see `read_cityscapes` and `read_cityscapes_panoptic`."""
        images, *paths = self.paths(root).values()
        if self.label_dir:
            return read_cityscapes(images, paths[0])
        return read_cityscapes_panoptic(images, paths[0], paths[1], breaches)


def read_cityscapes(images_dir: str | os.PathLike, label_dir: str | os.PathLike) -> PanopticSplit:
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
            map_format="grey",
        )
        for name in sorted(names)
    ]
    check_files("image", [record.image_path for record in records], label_dir)
    check_files("instance map", [record.panoptic_path for record in records], images_dir)
    return PanopticSplit(CATEGORIES, LazyRecords(records, _with_segments))


def read_cityscapes_panoptic(
    images_dir: str | os.PathLike,
    panoptic_json: str | os.PathLike,
    panoptic_dir: str | os.PathLike,
    breaches: Breaches | None = None,
) -> PanopticSplit:
    """Reads a split that cityscapesScripts or `convert-cityscapes` has converted.

    Args:
        images_dir: as in `read_cityscapes`. Images are found by their ids, since the file names in
            the JSON of cityscapesScripts are not those of the files.
        panoptic_json, panoptic_dir: e.g. `gtFine/cityscapes_panoptic_train.json` and the folder of
            that name; its categories have label ids or train ids.
        breaches: see `read_coco_panoptic`.

    Raises:
        DataError: as `read_coco_panoptic`.
    """
    return read_coco_panoptic(images_dir, panoptic_json, panoptic_dir, breaches, _published_name)


def _names(folder, ending):
    """Set of the paths in a folder that end so, without the ending."""
    found = pathlib.Path(folder).rglob(f"*{ending}")
    return {path.relative_to(folder).as_posix().removesuffix(ending) for path in found}


def _published_name(image_id, _):
    return f"{str(image_id).split('_')[0]}/{image_id}{_IMAGE_ENDING}"


def _with_segments(record: ImageRecord) -> ImageRecord:
    return annotated(record, read_label_png(record.panoptic_path))


def annotated(record: ImageRecord, values: np.ndarray) -> ImageRecord:
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
