"""Semantic labels in PNGs: the value of a pixel names its class."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Literal

from PIL import Image

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.folders import files_by_stem
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.images import read_header
from tf_panoptic_fpn.formats.records import (
    ImageRecord,
    LazyRecords,
    PanopticSplit,
    Segment,
    check_files,
)
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.messages import few
from tf_panoptic_fpn.section import Path, setting

_USUAL_VOID = (0, 255)


class LabelMapsSplit(SplitConfig):
    """Label maps: a grey or palette PNG of category ids for each image. Semantic labels only."""

    tasks = ("semantic",)

    format: Literal["label_maps"] = "label_maps"
    images: Path = setting("", "folder of the images")
    label_dir: Path = setting("", "folder of the maps")
    categories: Path = setting("", "YAML or JSON list of id, name and isthing")

    def read(self, root: str | os.PathLike, breaches: Breaches | None = None) -> PanopticSplit:
        """Reads the split, see `read_label_maps`; nothing is left out."""
        images, label_dir, categories = self.paths(root).values()
        return read_label_maps(images, label_dir, categories)


def read_label_maps(
    images_dir: str | os.PathLike,
    label_dir: str | os.PathLike,
    categories_file: str | os.PathLike,
) -> PanopticSplit:
    """Reads a split of images and label maps, whose values are category ids; it has no instances.

    The map of `images_dir/a/b.jpg` is `label_dir/a/b.png`. The values 0 and 255 are void unless
    they are categories; any other value must be one.

    Args:
        images_dir: folder of the images.
        label_dir: folder of PNGs, grey or with a palette.
        categories_file: see `CategoryTable.load`; a category without `isthing` is stuff.

    Returns:
        A `PanopticSplit` without panoptic maps, in the order of the paths. A record has one segment
        for each category, in the image or not. Sizes are read each time that a record is asked for.

    Raises:
        DataError: if a file is missing or the categories break a rule; from a record, if its image
            has no readable head.
    """
    categories = CategoryTable.load(categories_file, default_thing=False)
    wrong = [c.id for c in categories.categories if not 0 <= c.id < 1 << 16]
    if wrong:
        raise DataError(
            f"{categories_file}: needs categories with ids in 0..65535, the values of the maps. "
            f"Received: {few(wrong)}"
        )
    endings = tuple(Image.registered_extensions())
    images = files_by_stem(images_dir, endings, "two images share a label map")
    if not images:
        raise DataError(f"{images_dir}: the folder has no images")
    ids = {category.id: category.id for category in categories.categories}
    segments, void_values = label_segments(ids, _USUAL_VOID)
    records = [
        ImageRecord(
            image_id=stem,
            file_name=file_name,
            image_path=os.path.join(images_dir, file_name),
            panoptic_path=os.path.join(label_dir, f"{stem}.png"),
            segments=segments,
            instances=(),
            map_format="grey",
            void_values=void_values,
        )
        for stem, file_name in images.items()
    ]
    check_files("label map", [record.panoptic_path for record in records], images_dir)
    return PanopticSplit(categories, LazyRecords(records, _with_size), has_panoptic=False)


def label_segments(
    category_of_value: Mapping[int, int], void_values: Iterable[int]
) -> tuple[tuple[Segment, ...], tuple[int, ...]]:
    """One segment for each class of a label map.

    Args:
        category_of_value: value of a pixel, of 8 or 16 bits -> category id.
        void_values: those that mean void unless they are a category.

    Returns:
        `(segments, void_values)` for an `ImageRecord` with a "grey" map.
    """
    segments = [Segment(value + 1, category) for value, category in category_of_value.items()]
    return tuple(segments), tuple(v for v in void_values if v not in category_of_value)


def _with_size(record: ImageRecord) -> ImageRecord:
    header = read_header(record.image_path)
    return dataclasses.replace(record, height=header.height, width=header.width)
