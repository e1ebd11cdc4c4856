"""An exported SavedModel as a predictor."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.images import FULL_RANGE
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor

MERGED = (
    schema.PANOPTIC_MAP,
    schema.CATEGORY_IDS,
    schema.IS_THING,
    schema.SCORES,
    schema.AREAS,
    schema.BOXES,
    schema.NUM_SEGMENTS,
)
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
        return [
            self._by_schema({name: value[row] for name, value in outputs.items()})
            for row in range(len(images))
        ]

    def _by_schema(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The flat names that are served, as a `Predictor` nests them."""
        prediction: dict[str, Any] = {name: outputs[name] for name in MERGED}
        if schema.SEMANTIC_MAP in outputs:
            prediction[schema.SEMANTIC_MAP] = outputs[schema.SEMANTIC_MAP]
        if schema.NUM_DETECTIONS in outputs:
            prediction[schema.INSTANCES] = {
                schema.BOXES: outputs["detection_boxes"],
                schema.SCORES: outputs["detection_scores"],
                schema.CLASSES: self._classes(
                    outputs["detection_category_ids"], int(outputs[schema.NUM_DETECTIONS])
                ),
                schema.MASK_PROBS: outputs["detection_mask_probs"],
                schema.NUM_DETECTIONS: outputs[schema.NUM_DETECTIONS],
            }
        return prediction

    def _classes(self, category_ids: np.ndarray, count: int) -> np.ndarray:
        """Thing classes of the first `count` category ids, and -1."""
        found = category_ids[:count].tolist()
        unknown = set(found) - set(self._thing_class)
        if unknown:
            raise DataError(
                f"{self._folder}: predicts category ids that the data set lacks: {sorted(unknown)}"
            )
        padding = [-1] * (len(category_ids) - len(found))
        return np.array([self._thing_class[i] for i in found] + padding, np.int32)


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
