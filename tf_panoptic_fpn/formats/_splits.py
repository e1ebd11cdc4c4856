"""Temporary: to be moved beside the readers."""

from typing import Literal

from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Path, setting


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


class CocoInstancesSplit(SplitConfig):
    """COCO instances: a JSON of polygons and RLEs. Instances only."""

    tasks = ("instance",)

    format: Literal["coco_instances"] = "coco_instances"
    images: Path = setting("", "folder of the images")
    instances_json: Path = setting("", "COCO instances JSON")


class CocoStuffSplit(SplitConfig):
    """COCO-Stuff: pixel maps of category id - 1, and COCO's instances."""

    format: Literal["coco_stuff"] = "coco_stuff"
    images: Path = setting("", "folder of the images")
    instances_json: Path = setting("", "COCO instances JSON")
    label_dir: Path = setting("", "folder of the pixel maps")


class CityscapesSplit(SplitConfig):
    """Cityscapes as published, or as cityscapesScripts convert it to COCO panoptic."""

    alternatives = ({"images", "label_dir"}, {"images", "panoptic_json", "panoptic_dir"})

    format: Literal["cityscapes"] = "cityscapes"
    images: Path = setting("", "a split of leftImg8bit/")
    label_dir: Path = setting("", "the split of gtFine/ with its *_instanceIds.png")
    panoptic_json: Path = setting("", "the converted JSON, in place of label_dir")
    panoptic_dir: Path = setting("", "the folder of its PNGs")


class LabelMapsSplit(SplitConfig):
    """Label maps: a grey or palette PNG of category ids for each image. Semantic labels only."""

    tasks = ("semantic",)

    format: Literal["label_maps"] = "label_maps"
    images: Path = setting("", "folder of the images")
    label_dir: Path = setting("", "folder of the maps")
    categories: Path = setting("", "YAML or JSON list of id, name and isthing")
