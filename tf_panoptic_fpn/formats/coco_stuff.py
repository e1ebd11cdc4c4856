"""Reading COCO-Stuff: pixel maps of things and stuff, with the things of COCO's instances JSON."""

import dataclasses
import os
from typing import Literal

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances
from tf_panoptic_fpn.formats.label_maps import label_segments
from tf_panoptic_fpn.formats.records import LazyRecords, PanopticSplit, check_files
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Path, setting

# The stuff of COCO-Stuff, from id 92 on; https://github.com/nightrome/cocostuff, labels.txt.
_STUFF_NAMES = (
    "banner blanket branch bridge building-other bush cabinet cage cardboard carpet ceiling-other "
    "ceiling-tile cloth clothes clouds counter cupboard curtain desk-stuff dirt door-stuff fence "
    "floor-marble floor-other floor-stone floor-tile floor-wood flower fog food-other fruit "
    "furniture-other grass gravel ground-other hill house leaves light mat metal mirror-stuff moss "
    "mountain mud napkin net paper pavement pillow plant-other plastic platform playingfield "
    "railing railroad river road rock roof rug salad sand sea shelf sky-other skyscraper snow "
    "solid-other stairs stone straw structural-other table tent textile-other towel tree vegetable "
    "wall-brick wall-concrete wall-other wall-panel wall-stone wall-tile wall-wood water-other "
    "waterdrops window-blind window-other wood"
)
_FIRST_STUFF = 92
_NUM_VALUES = 182
_VOID = 255


class CocoStuffSplit(SplitConfig):
    """COCO-Stuff: pixel maps of category id - 1, and COCO's instances."""

    format: Literal["coco_stuff"] = "coco_stuff"
    images: Path = setting("", "folder of the images")
    instances_json: Path = setting("", "COCO instances JSON")
    label_dir: Path = setting("", "folder of the pixel maps")

    def read(self, root: str | os.PathLike, breaches: Breaches | None = None) -> PanopticSplit:
        """Reads the split, see `read_coco_stuff`."""
        images, instances_json, label_dir = self.paths(root).values()
        return read_coco_stuff(images, instances_json, label_dir, breaches)


def read_coco_stuff(
    images_dir: str | os.PathLike,
    instances_json: str | os.PathLike,
    label_dir: str | os.PathLike,
    breaches: Breaches | None = None,
) -> PanopticSplit:
    """Reads a split of COCO-Stuff: its maps for the semantic branch, COCO's instances for things.

    Args:
        images_dir: folder of the images.
        instances_json, breaches: see `read_coco_instances`.
        label_dir: folder of the `stuffthingmaps`: of the image `a.jpg` the PNG `a.png`, with
            category id - 1 in 0..181, and 255 for void.

    Returns:
        A `PanopticSplit` without panoptic maps. Its categories are the things of the JSON and the
        91 stuff classes, 92..182; with the semantic class `other` for things, these are the 92 of
        the COCO-Stuff challenge. A record has one segment for each category, in the image or not.

    Raises:
        DataError: as `read_coco_instances`, or if a map is missing.
    """
    split = read_coco_instances(images_dir, instances_json, breaches)
    things = [c for c in split.categories.categories if c.is_thing and c.id < _FIRST_STUFF]
    if len(things) < len(split.categories.categories):
        raise DataError(f"{instances_json}: must have things only, with ids below {_FIRST_STUFF}")
    names = _STUFF_NAMES.split()
    stuff = [Category(_FIRST_STUFF + i, name, False) for i, name in enumerate(names)]
    categories = CategoryTable((*things, *stuff))
    values = {category.id - 1: category.id for category in categories.categories}
    segments, void_values = label_segments(values, (*range(_NUM_VALUES), _VOID))

    def with_map(record):
        return dataclasses.replace(
            record,
            panoptic_path=_map_path(label_dir, record),
            segments=segments,
            map_format="grey",
            void_values=void_values,
        )

    assert isinstance(split.images, LazyRecords)  # of which no mask is to be decoded
    paths = [_map_path(label_dir, record) for record in split.images.records]
    check_files("label map", paths, instances_json)
    return PanopticSplit(categories, LazyRecords(split.images, with_map), has_panoptic=False)


def _map_path(label_dir, record):
    return os.path.join(label_dir, f"{os.path.splitext(record.file_name)[0]}.png")
