"""What an exported graph returns, under flat names, as a predictor returns it."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import DataError

MERGED = (
    schema.PANOPTIC_MAP,
    schema.CATEGORY_IDS,
    schema.IS_THING,
    schema.SCORES,
    schema.AREAS,
    schema.BOXES,
    schema.NUM_SEGMENTS,
)


def by_image(
    outputs: Mapping[str, np.ndarray], thing_class: Mapping[int, int], path: str | os.PathLike
) -> list[dict[str, Any]]:
    """Turns the outputs of a batch into what `ImagePredictor.run` returns.

    Args:
        outputs: dict of arrays with a leading B.
        thing_class: dict, data-set id -> thing class, of the data set.
        path: of the model, for the message.

    Raises:
        DataError: if the model predicts a category id that the data set lacks.
    """
    count = len(outputs[schema.PANOPTIC_MAP])
    rows = ({name: value[row] for name, value in outputs.items()} for row in range(count))
    return [_by_schema(row, thing_class, path) for row in rows]


def _by_schema(
    outputs: Mapping[str, np.ndarray], thing_class: Mapping[int, int], path: str | os.PathLike
) -> dict[str, Any]:
    prediction: dict[str, Any] = {name: outputs[name] for name in MERGED}
    if schema.SEMANTIC_MAP in outputs:
        prediction[schema.SEMANTIC_MAP] = outputs[schema.SEMANTIC_MAP]
    if schema.NUM_DETECTIONS in outputs:
        count = int(outputs[schema.NUM_DETECTIONS])
        prediction[schema.INSTANCES] = {
            schema.BOXES: outputs["detection_boxes"],
            schema.SCORES: outputs["detection_scores"],
            schema.CLASSES: _classes(outputs["detection_category_ids"], count, thing_class, path),
            schema.MASK_PROBS: outputs["detection_mask_probs"],
            schema.NUM_DETECTIONS: outputs[schema.NUM_DETECTIONS],
        }
    return prediction


def _classes(
    category_ids: np.ndarray,
    count: int,
    thing_class: Mapping[int, int],
    path: str | os.PathLike,
) -> np.ndarray:
    """Thing classes of the first `count` category ids, and -1."""
    found = category_ids[:count].tolist()
    unknown = set(found) - set(thing_class)
    if unknown:
        raise DataError(f"{path}: predicts category ids that the data set lacks: {sorted(unknown)}")
    padding = [-1] * (len(category_ids) - len(found))
    return np.array([thing_class[i] for i in found] + padding, np.int32)
