"""A predictor that finds what is bright, and a picture for it."""

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor

CATEGORIES = CategoryTable((Category(7, "bright", True), Category(9, "dark", False)))


class Threshold(ImagePredictor):
    """A predictor: the pixels whose red is above 127 are one instance, the others stuff."""

    def __init__(self):
        self.categories = CATEGORIES
        self.batches = []

    def run(self, images):
        self.batches.append(images.shape)
        return [outputs_of(image) for image in images]


def outputs_of(image):
    is_bright = image[..., 0] > 127
    height, width = is_bright.shape
    area = int(is_bright.sum())
    return {
        schema.PANOPTIC_MAP: np.where(is_bright, 1, 2).astype(np.int32),
        schema.CATEGORY_IDS: np.array([7, 9]),
        schema.IS_THING: np.array([True, False]),
        schema.SCORES: np.array([0.75, 1.0]),
        schema.AREAS: np.array([area, height * width - area]),
        schema.BOXES: np.array([[0, 0, height / 2, width], [height / 2, 0, height, width]]),
        schema.NUM_SEGMENTS: np.int32(2),
        schema.INSTANCES: {
            schema.BOXES: np.array([[0, 0, height / 2, width]], np.float32),
            schema.SCORES: np.array([0.75], np.float32),
            schema.CLASSES: np.array([0], np.int32),
            schema.MASK_PROBS: np.ones((1, 28, 28), np.float32),
            schema.NUM_DETECTIONS: np.int32(1),
        },
    }


def picture(size=(48, 64), bright=200):
    """Bright above, dark below."""
    image = np.zeros((*size, 3), np.uint8)
    image[: size[0] // 2] = bright
    return image
