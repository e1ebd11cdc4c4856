"""An exported SavedModel as a predictor."""

import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.images import FULL_RANGE
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.served_outputs import by_image

SAVED_MODEL = "saved_model.pb"  # the file that makes a folder one
CATEGORIES = "assets/categories.json"
PIXEL_RANGE = "assets/pixel_range.json"  # [low, high]; not there for the full range
# {"merge": {...}, "semantic_things": "other"}, what is in the graph; not there in earlier exports.
SETTINGS = "assets/settings.json"


class SavedModelPredictor(ImagePredictor):
    """Runs the signature `tensor` of an exported SavedModel.

    Args:
        folder: of the SavedModel, such as `saved_model/1`.
        categories: `CategoryTable` of the data set; None: the one that was exported with it.

    Raises:
        ConfigError: if the folder holds none, it cannot be loaded, or it lacks the signature or its
            categories.
    """

    def __init__(self, folder: str | os.PathLike, categories: CategoryTable | None = None) -> None:
        self._folder = folder
        if not (pathlib.Path(folder) / SAVED_MODEL).is_file():
            raise ConfigError(f"{folder}: holds no {SAVED_MODEL}")
        self.categories = categories or exported_categories(folder)
        self._thing_class = self.categories.thing_class
        self.pixel_range = _exported_pixel_range(folder)
        self._read_settings()
        try:
            self._loaded = tf.saved_model.load(str(folder))  # signatures do not keep it alive
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{folder}: cannot be loaded: {reason}") from None
        if "tensor" not in self._loaded.signatures:
            names = list(self._loaded.signatures)
            raise ConfigError(f"{folder}: needs the signature `tensor`. Received: {names}")

    def _read_settings(self) -> None:
        file = pathlib.Path(self._folder) / SETTINGS
        if file.is_file():
            settings = json.loads(file.read_text(encoding="utf-8"))
            self.merge = MergeConfig(**settings["merge"])
            self.categories = self.categories.with_semantic_things(settings["semantic_things"])

    def run(self, images: np.ndarray) -> list[dict]:
        outputs = self._loaded.signatures["tensor"](images=tf.constant(images))
        outputs = {name: value.numpy() for name, value in outputs.items()}
        return by_image(outputs, self._thing_class, self._folder)


def exported_categories(folder: str | os.PathLike) -> CategoryTable:
    """Reads the `CategoryTable` that was exported with a SavedModel."""
    file = pathlib.Path(folder) / CATEGORIES
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; export the model again with its categories")
    return CategoryTable.load(file)


def _exported_pixel_range(folder: str | os.PathLike) -> tuple[int, int]:
    file = pathlib.Path(folder) / PIXEL_RANGE
    if not file.is_file():
        return FULL_RANGE
    low, high = json.loads(file.read_text(encoding="utf-8"))
    return low, high
