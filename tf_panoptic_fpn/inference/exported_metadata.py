"""What an exported file says of itself, as strings under keys."""

import json
import os
from collections.abc import Mapping

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.served_outputs import by_image

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


class ExportedPredictor(ImagePredictor):
    """A predictor that is made of a file; a subclass sets `outputs_of`.

    Args:
        path: of the file.
        metadata: what it says of itself.
        categories: `CategoryTable`; None: those in the file.

    Raises:
        ConfigError: if `export` did not write the file.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        metadata: Mapping[str, str],
        categories: CategoryTable | None,
    ) -> None:
        self._path = path
        exported = read_categories(metadata, path)
        settings = json.loads(metadata[SETTINGS])
        semantic_things = settings["semantic_things"]
        self.categories = (categories or exported).with_semantic_things(semantic_things)
        self.merge = MergeConfig(**settings["merge"])
        low, high = settings["pixel_range"]
        self.pixel_range = (low, high)
        self._thing_class = self.categories.thing_class

    def outputs_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the file by their names."""
        raise NotImplementedError

    def run(self, images: np.ndarray) -> list[dict]:
        outputs = self.outputs_of(np.ascontiguousarray(images))
        return by_image(outputs, self._thing_class, self._path)
