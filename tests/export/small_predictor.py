"""A small predictor that finds much, for the tests of exports."""

import numpy as np
from small_model import make_tiny_model

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.inference.predictor import Predictor

TABLE = CategoryTable(tuple(Category(10 * i + 7, f"c{i}", i < 5) for i in range(9)))
DETECTIONS = 14
SPLIT = SplitConfig(short_sides=(64,), max_long_side=128)


def make_predictor(**changes):
    """A `Predictor` whose untrained model tells classes, boxes and masks apart."""
    model = make_tiny_model(**{"max_detections": DETECTIONS, **changes})
    rng = np.random.default_rng(0)
    for weight in model.weights:
        scales = {
            "objectness/kernel": 0.1,
            "deltas/kernel": 0.02,
            "classes/kernel": 0.4,
            "mask_head/predictor/kernel": 0.2,
        }
        scale = next((s for name, s in scales.items() if weight.path.endswith(name)), None)
        if scale:
            weight.assign(rng.normal(0, scale, weight.shape))
    merge = MergeConfig(score_threshold=0.3, stuff_area=200)
    return Predictor(model, TABLE, merge, SPLIT)


def make_images(count, size, seed=0):
    """uint8 `[count, H, W, 3]`: coloured blocks with noise."""
    rng = np.random.default_rng(seed)
    rows, columns = (side // 12 + 1 for side in size)
    blocks = rng.integers(0, 256, (count, rows, columns, 3)).repeat(12, 1).repeat(12, 2)
    noisy = blocks[:, : size[0], : size[1]] + rng.normal(0, 10, (count, *size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)
