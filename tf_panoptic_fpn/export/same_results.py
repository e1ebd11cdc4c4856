"""Whether an exported model gives what the model gives, on a picture made for it."""

import os

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.merge import Merger

SIZE = (97, 131)
# Rounding may turn what is on the brink. What each map and the detections may have of that:
MAX_SHARE = {"semantic map": 0.01, "detections": 0.1, "merge": 0.001}


def check_same_results(
    predictor: ImagePredictor,
    exported: ImagePredictor,
    path: str | os.PathLike,
    same_network: bool = True,
) -> None:
    """Compares what two predictors see in a picture of coloured blocks and noise.

    The merge of the exported one is judged on what its own network gave.

    Args:
        predictor: an `ImagePredictor`.
        exported: the same, exported.
        path: where it is, for the message.
        same_network: bool; False if the exported network is a coarser one, whose merge alone is
            compared.

    Raises:
        PanopticError: if they differ by more than rounding.
    """
    image = _picture()
    (received,) = exported.run(image[None])
    shares = {"merge": _merge_difference(received, predictor)}
    if same_network:
        (expected,) = predictor.run(image[None])
        if schema.SEMANTIC_MAP in expected:
            maps = (values[schema.SEMANTIC_MAP] for values in (expected, received))
            shares["semantic map"] = float(np.not_equal(*maps).mean())
        if schema.INSTANCES in expected:
            shares["detections"] = _unmatched(
                expected[schema.INSTANCES], received[schema.INSTANCES]
            )
    for name, share in shares.items():
        if share > MAX_SHARE[name]:
            raise PanopticError(
                f"{path}: what was exported differs from the model: {share:.1%} of the {name} on a "
                "picture of noise; it was not kept"
            )


def _picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (7, 9, 3)).repeat(16, 0).repeat(16, 1)[: SIZE[0], : SIZE[1]]
    return np.clip(blocks + rng.normal(0, 12, (*SIZE, 3)), 0, 255).astype(np.uint8)


def _merge_difference(received: dict, predictor: ImagePredictor) -> float:
    merged = Merger(predictor.categories)(
        received.get(schema.INSTANCES), received.get(schema.SEMANTIC_MAP), SIZE, predictor.merge
    )
    name = schema.PANOPTIC_MAP
    return float((merged[name] != received[name]).mean())


def _unmatched(expected: dict, received: dict) -> float:
    """The share of detections without one of the same class, box and score on the other side."""
    sides = [
        (values[name][: int(values[schema.NUM_DETECTIONS])] for name in names)
        for values in (expected, received)
        for names in [(schema.BOXES, schema.SCORES, schema.CLASSES)]
    ]
    (boxes, scores, classes), (other_boxes, other_scores, other_classes) = sides
    same = np.abs(boxes[:, None] - other_boxes).max(axis=-1, initial=0) < 0.5
    same &= np.abs(scores[:, None] - other_scores) < 1e-3
    same &= classes[:, None] == other_classes
    total = same.shape[0] + same.shape[1]
    return float(1 - (same.any(0).sum() + same.any(1).sum()) / total) if total else 0.0
