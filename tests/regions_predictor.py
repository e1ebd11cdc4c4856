"""A predictor that labels the regions of an image by their red, and images for it."""

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.masks.components import label_parts
from tf_panoptic_fpn.masks.segment_map import tight_boxes

CATEGORIES = CategoryTable(
    (
        Category(7, "cell", True),
        Category(3, "blob", True),
        Category(9, "ground", False),
        Category(12, "water", False),
    )
)
THINGS = {200: 7, 160: 3}  # category by red
STUFF = {20: 9, 40: 12}


class Regions(ImagePredictor):
    """Each connected region of a red of `THINGS` is an instance; `STUFF` is in the semantic map.

    As a predictor does, stuff that is small in a tile is left out of its panoptic map.
    """

    def __init__(self, stuff_area=0):
        self.categories = CATEGORIES
        self.merge = MergeConfig(stuff_area=stuff_area)
        self.batches = []

    def run(self, images):
        self.batches.append(images.shape)
        return [self._outputs(image[..., 0]) for image in images]

    def _outputs(self, red):
        parts, reds = label_parts(red)
        ids = np.zeros(red.shape, np.int32)
        semantic = np.zeros(red.shape, np.int32)
        category_ids = []
        for part in np.flatnonzero(np.isin(reds, list(THINGS))):
            category_ids.append(THINGS[reds[part]])
            ids[parts == part] = len(category_ids)
        num_things = len(category_ids)
        for number, (level, category_id) in enumerate(STUFF.items(), 1):
            semantic[red == level] = number
            if np.sum(red == level) >= max(self.merge.stuff_area, 1):
                category_ids.append(category_id)
                ids[red == level] = len(category_ids)
        count = len(category_ids)
        boxes, areas = tight_boxes(ids, np.arange(1, count + 1))
        return {
            schema.PANOPTIC_MAP: ids,
            schema.CATEGORY_IDS: np.array(category_ids),
            schema.IS_THING: np.arange(count) < num_things,
            schema.SCORES: np.full(count, 0.75),
            schema.AREAS: areas,
            schema.BOXES: boxes,
            schema.NUM_SEGMENTS: np.int32(count),
            schema.SEMANTIC_MAP: semantic,
        }


def drawn(size, seed=0, coarse=4):
    """Random regions, uint8 `[H, W, 3]`."""
    rng = np.random.default_rng(seed)
    small = rng.choice([0, *THINGS, *STUFF], [-(-side // coarse) for side in size])
    red = small.repeat(coarse, axis=0).repeat(coarse, axis=1)[: size[0], : size[1]]
    return np.repeat(red[..., None], 3, axis=2).astype(np.uint8)
