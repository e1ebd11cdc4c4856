"""Semantic labels in PNGs: the value of a pixel names its class."""

import dataclasses
import os
import pathlib
from typing import Literal

import yaml
from PIL import Image

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import read_header
from tf_panoptic_fpn.formats.records import (
    ImageRecord,
    LazyRecords,
    PanopticSplit,
    Segment,
    check_files,
    few,
)
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Path, setting

_USUAL_VOID = (0, 255)


class LabelMapsSplit(SplitConfig):
    """Label maps: a grey or palette PNG of category ids for each image. Semantic labels only."""

    tasks = ("semantic",)

    format: Literal["label_maps"] = "label_maps"
    images: Path = setting("", "folder of the images")
    label_dir: Path = setting("", "folder of the maps")
    categories: Path = setting("", "YAML or JSON list of id, name and isthing")

    def read(self, root, breaches=None):
        """Reads the split, see `read_label_maps`; nothing is left out."""
        paths = self.paths(root)
        return read_label_maps(paths["images"], paths["label_dir"], paths["categories"])


def read_label_maps(images_dir, label_dir, categories_file):
    """Reads a split of images and label maps, whose values are category ids; it has no instances.

    The map of `images_dir/a/b.jpg` is `label_dir/a/b.png`. The values 0 and 255 are void unless
    they are categories; any other value must be one.

    Args:
        images_dir: folder of the images.
        label_dir: folder of PNGs, grey or with a palette.
        categories_file: YAML or JSON, the list `categories` of a COCO file or an object with that
            list. A category without `isthing` is stuff.

    Returns:
        A `PanopticSplit` without panoptic maps, in the order of the paths. A record has one segment
        for each category, in the image or not. Sizes are read each time that a record is asked for.

    Raises:
        DataError: if a file is missing or the categories break a rule; from a record, if its image
            has no readable head.
    """
    categories = _read_categories(categories_file)
    values = {category.id: category.id for category in categories.categories}
    images = _images_by_stem(images_dir)
    maps = [os.path.join(label_dir, f"{stem}.png") for stem in images]
    check_files("label map", maps, images_dir)
    segments, void_values = label_segments(values, _USUAL_VOID)
    records = [
        ImageRecord(
            image_id=stem,
            file_name=file_name,
            image_path=os.path.join(images_dir, file_name),
            panoptic_path=map_path,
            height=0,
            width=0,
            segments=segments,
            instances=(),
            map_format="grey",
            void_values=void_values,
        )
        for (stem, file_name), map_path in zip(images.items(), maps, strict=True)
    ]
    return PanopticSplit(categories, LazyRecords(records, _with_size), has_panoptic=False)


def label_segments(category_of_value, void_values):
    """One segment for each class of a label map.

    Args:
        category_of_value: dict: value of a pixel, of 8 or 16 bits -> category id.
        void_values: ints, those that mean void unless they are a category.

    Returns:
        `(segments, void_values)` for an `ImageRecord` with a "grey" map.
    """
    segments = [Segment(value + 1, category) for value, category in category_of_value.items()]
    return tuple(segments), tuple(v for v in void_values if v not in category_of_value)


def _with_size(record):
    header = read_header(record.image_path)
    return dataclasses.replace(record, height=header.height, width=header.width)


def _images_by_stem(folder):
    """Dict, sorted: path in the folder without its ending -> path in the folder."""
    endings = set(Image.registered_extensions())
    found = [p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in endings]
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    stems = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        if stem in stems:
            raise DataError(f"{folder}: two images share a label map: {stems[stem]}, {name}")
        stems[stem] = name
    if not stems:
        raise DataError(f"{folder}: the folder has no images")
    return stems


def _read_categories(path):
    try:
        with open(path, encoding="utf-8") as file:
            tree = yaml.safe_load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    entries = tree.get("categories") if isinstance(tree, dict) else tree
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: must hold a list of categories, each with `id` and `name`")
    entries = [{"isthing": 0, **entry} for entry in entries]
    categories = CategoryTable.from_coco(entries, file=str(path))
    wrong = [c.id for c in categories.categories if not 0 <= c.id < 1 << 16]
    if wrong or not entries:
        raise DataError(
            f"{path}: needs categories with ids in 0..65535, the values of the maps. "
            f"Received: {few(wrong) or 'none'}"
        )
    return categories
