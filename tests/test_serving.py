"""The served graph's preprocessing against the data pipeline's."""

import numpy as np
import pytest
import tensorflow as tf
from small_model import make_small_model

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.data.images import read_image, resize_image, resized_size
from tf_panoptic_fpn.serving import Predictor, decode_image

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(k + 50, f"stuff {k}", False) for k in range(4))
)


def make_predictor(short_side, max_long_side, model=None):
    split = SplitConfig(short_sides=(short_side,), max_long_side=max_long_side)
    return Predictor(model, CATEGORIES, MergeConfig(stuff_area=64), split)


def test_decoding_equals_pillow(samples):
    files = sorted(samples.glob("coco_instances/images/*.jpg"))
    files += sorted(samples.glob("nuclei/images/*.png"))[:4]
    assert len(files) > 50
    for file in files:
        decoded = decode_image(tf.io.read_file(str(file))).numpy()
        np.testing.assert_array_equal(decoded, read_image(file), err_msg=file.name)


@pytest.mark.parametrize("limits", [(800, 1333), (640, 1333), (360, 640)])
def test_network_size_equals_the_pipelines(limits):
    predictor = make_predictor(*limits)
    for height, width in np.random.default_rng(0).integers(1, 2000, (300, 2)):
        size = predictor.network_size(tf.constant([height, width])).numpy()
        assert tuple(size) == resized_size(height, width, *limits)


def test_resizing_equals_pillows_to_rounding(samples):
    image = read_image(next(iter(sorted(samples.glob("camvid/images/val/*.jpg")))))
    for size in ((180, 240), (288, 384), (384, 512)):
        served = Predictor.resize(image[None], tf.constant(size))[0].numpy()
        difference = np.abs(served - resize_image(image, size).astype(np.float32))
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.03


def test_batch_of_pixels_equals_each_alone_and_maps_are_consistent():
    model = make_small_model()
    predictor = make_predictor(64, 128, model)
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 80, 3)).astype(np.uint8)
    together = predictor.predict_images(tf.constant(images))
    for i, image in enumerate(images):
        alone = predictor(image)
        for name in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP, schema.CATEGORY_IDS):
            np.testing.assert_array_equal(together[name][i], alone[name])
        count = int(alone[schema.NUM_SEGMENTS])
        assert count > 0
        ids = alone[schema.PANOPTIC_MAP]
        areas = [(ids == k + 1).sum() for k in range(count)]
        np.testing.assert_array_equal(alone[schema.AREAS][:count], areas)
        assert set(alone[schema.CATEGORY_IDS][:count]) <= set(CATEGORIES.by_id)
