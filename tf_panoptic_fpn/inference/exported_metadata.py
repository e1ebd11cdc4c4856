"""What an exported file says of itself, as strings under keys."""

import json
import os
from collections.abc import Mapping

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor

CATEGORIES = "categories"  # JSON, `CategoryTable.to_coco`
SETTINGS = "settings"  # JSON, {"merge": {...}, "semantic_things": ..., "pixel_range": [low, high]}
CONFIG = "config"  # JSON, the arguments of `PanopticFPN` and how images are resized
VERSION = "version"  # of this package
WEIGHTS = "weights_sha256"
KEYS = (CATEGORIES, SETTINGS, CONFIG, VERSION, WEIGHTS)


def read_categories(metadata: Mapping[str, str], path: str | os.PathLike) -> CategoryTable:
    """Reads the `CategoryTable`.

    Raises:
        ConfigError: if `export` did not write the file.
    """
    if CATEGORIES not in metadata or SETTINGS not in metadata:
        raise ConfigError(f"{path}: is not a file that `export` wrote")
    return CategoryTable.from_coco(json.loads(metadata[CATEGORIES]), os.fspath(path))


def apply_settings(
    predictor: ImagePredictor,
    metadata: Mapping[str, str],
    path: str | os.PathLike,
    categories: CategoryTable | None,
) -> None:
    """Sets the attributes of a predictor; the categories are those given, or those in the file."""
    exported = read_categories(metadata, path)
    settings = json.loads(metadata[SETTINGS])
    semantic_things = settings["semantic_things"]
    predictor.categories = (categories or exported).with_semantic_things(semantic_things)
    predictor.merge = MergeConfig(**settings["merge"])
    low, high = settings["pixel_range"]
    predictor.pixel_range = (low, high)
