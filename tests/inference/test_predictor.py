"""The served graph's preprocessing against the data pipeline's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pillow_resize import resize_image
from small_model import make_small_model

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.formats.images import read_image, resized_size
from tf_panoptic_fpn.inference.merge import Merger, balance_classes
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.semantic_map import resized_logits
from tf_panoptic_fpn.ops.masks import paste_masks
from tf_panoptic_fpn.results.result import Result

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(k + 50, f"stuff {k}", False) for k in range(4))
)

ROUNDING = 1e-5  # of float32 sums through thirty layers, of the largest value


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return make_small_model()


def make_predictor(model, short_side, max_long_side):
    split = SplitConfig(short_sides=(short_side,), max_long_side=max_long_side)
    return Predictor(model, CATEGORIES, MergeConfig(stuff_area=64), split)


@pytest.mark.parametrize("limits", [(800, 1333), (640, 1333), (360, 640)])
def test_network_size_equals_the_pipelines(model, limits):
    predictor = make_predictor(model, *limits)
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


def test_what_else_is_in_a_batch_has_no_bearing(model):
    """To the bit: the sums are in one order, as they are not between batches of two sizes.

    But for masks: their head runs on as many rois as the image with most detections has.
    """
    predictor = make_predictor(model, 64, 128)
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 80, 3)).astype(np.uint8)
    first, second = predictor.run(images)
    for row, together in enumerate((first, second)):
        alone = predictor.run(images[[row, row]])[row]
        masks = [each[schema.INSTANCES].pop(schema.MASK_PROBS) for each in (together, alone)]
        np.testing.assert_allclose(*masks, rtol=0, atol=1e-6)  # four roundings of 1
        tf.nest.map_structure(np.testing.assert_array_equal, together, alone)


def undecided(predictor, image, alone, together):
    """Where sums of another order may turn a class, and where a mask: bool `[H, W]` each."""
    original = tf.constant(image.shape[:2])
    size = predictor.network_size(original)
    inputs = {
        schema.IMAGES: predictor.resize(image[None], size),
        schema.IMAGE_SIZES: size[None],
    }
    logits = predictor.model(inputs)[schema.SEMANTIC_LOGITS][0]
    logits = np.sort(resized_logits(logits, size, original).numpy())
    is_open = logits[..., -1] - logits[..., -2] < ROUNDING * np.abs(logits).max()
    probs = [
        paste_masks(o[schema.MASK_PROBS], o[schema.BOXES], original).numpy()
        for o in (alone[schema.INSTANCES], together[schema.INSTANCES])
    ]
    moved = np.abs(probs[1] - probs[0]).max()
    assert moved < 0.01  # measured: .0014, with oneDNN .0032; a box moves with the sums
    return is_open, (np.abs(probs[0] - 0.5) <= 2 * moved).any(0)


def test_batch_of_pixels_equals_each_alone_and_maps_are_consistent(model):
    predictor = make_predictor(model, 64, 128)
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 80, 3)).astype(np.uint8)
    for image, together in zip(images, predictor.run(images), strict=True):
        (alone,) = predictor.run(image[None])
        for name in (schema.NUM_SEGMENTS, schema.CATEGORY_IDS):
            np.testing.assert_array_equal(together[name], alone[name])
        is_open, is_rim = undecided(predictor, image, alone, together)
        for name, may_turn in (
            (schema.SEMANTIC_MAP, is_open),
            (schema.PANOPTIC_MAP, is_open | is_rim),
        ):
            assert may_turn.mean() < 0.1
            np.testing.assert_array_equal(together[name][~may_turn], alone[name][~may_turn])
        count = int(alone[schema.NUM_SEGMENTS])
        assert count > 0
        ids = alone[schema.PANOPTIC_MAP]
        areas = [(ids == k + 1).sum() for k in range(count)]
        np.testing.assert_array_equal(alone[schema.AREAS][:count], areas)
        assert set(alone[schema.CATEGORY_IDS][:count]) <= set(CATEGORIES.by_id)


def test_balanced_classes_by_hand():
    """Probabilities .6, .4 at shares .75, .25 are as .8 to 1.6; a class of share 0 is out."""
    logits = tf.math.log([[0.6, 0.4, 0.0], [0.05, 0.05, 0.9]])
    balanced = balance_classes(logits, [0.75, 0.25, 0.0]).numpy()
    probs = np.exp(balanced) / np.exp(balanced).sum(-1, keepdims=True)
    np.testing.assert_allclose(probs, [[1 / 3, 2 / 3, 0], [0.25, 0.75, 0]], rtol=1e-5)


def test_shares_of_the_classes_rule_the_semantic_map(model):
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 80, 3)).astype(np.uint8)
    shares = [0.5, 0.0, 0.5, 0.0, 0.0]
    plain, balanced = (
        Predictor(model, CATEGORIES, MergeConfig(), SplitConfig(short_sides=(64,)), s)
        .predict_images(tf.constant(image))[schema.SEMANTIC_MAP]
        .numpy()
        for s in (None, shares)
    )
    assert len(np.unique(plain)) > 2
    assert set(np.unique(balanced)) == {0, 2}
    allowed = np.isin(plain, [0, 2])
    np.testing.assert_array_equal(balanced[allowed], plain[allowed])


def test_category_ids_of_any_number():
    """0 is an id like others, and so is one beyond int32."""
    table = CategoryTable((Category(0, "cat", True), Category(3_000_000_000, "sky", False)))
    instances = {
        schema.BOXES: np.float32([[0, 0, 4, 3]]),
        schema.SCORES: np.float32([0.7]),
        schema.CLASSES: np.int32([0]),
        schema.MASK_PROBS: np.ones((1, 28, 28), np.float32),
    }
    merger = Merger(table)
    for threshold, expected in ((0.5, [0, 3_000_000_000]), (0.9, [3_000_000_000, -1])):
        settings = MergeConfig(score_threshold=threshold, stuff_area=0)
        merged = merger(instances, np.ones((4, 6)), (4, 6), settings)
        assert merged[schema.CATEGORY_IDS].dtype == np.int64
        assert merged[schema.CATEGORY_IDS].tolist() == expected
        segments = Result.from_outputs(merged, table).segments
        assert [s["category_id"] for s in segments] == [i for i in expected if i >= 0]


def test_merging_again_equals_another_predictor(model):
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 80, 3)).astype(np.uint8)
    split = SplitConfig(short_sides=(64,))
    merger = Merger(CATEGORIES)
    for merge in (
        MergeConfig(score_threshold=0.0, overlap_threshold=0.9, stuff_area=0),
        MergeConfig(score_threshold=0.1, stuff_area=64),
    ):
        predictor = Predictor(model, CATEGORIES, merge, split)
        expected = predictor.predict_images(tf.constant(image))
        expected = tf.nest.map_structure(lambda value: value[0].numpy(), expected)
        instances, semantic = expected.pop(schema.INSTANCES), expected.pop(schema.SEMANTIC_MAP)
        merged = merger(instances, semantic.astype(np.uint8), (48, 80), merge)
        assert merged[schema.NUM_SEGMENTS] > 0
        tf.nest.map_structure(np.testing.assert_array_equal, merged, expected)
    stuff = merger(None, semantic, (48, 80), MergeConfig(stuff_area=0))
    np.testing.assert_array_equal(stuff[schema.PANOPTIC_MAP] > 0, semantic > 0)
    things = merger(
        instances,
        None,
        (48, 80),
        MergeConfig(score_threshold=0.0, overlap_threshold=0.9, stuff_area=0),
    )
    assert things[schema.IS_THING][: things[schema.NUM_SEGMENTS]].all()


def test_panoptic_only_computes_the_masks_alone_that_a_merge_can_use(model):
    image = np.random.default_rng(0).uniform(0, 255, (1, 48, 80, 3)).astype(np.float32)
    inputs = {schema.IMAGES: image, schema.IMAGE_SIZES: np.array([[48, 80]], np.int32)}
    expected = tf.nest.map_structure(np.asarray, model(inputs))
    scores = np.unique(expected[schema.SCORES][0])  # ascending
    threshold = float(scores[-2])
    received = tf.nest.map_structure(
        np.asarray, model.panoptic_outputs(*inputs.values(), threshold)
    )
    used = int(np.sum(received[schema.SCORES][0] >= threshold))
    assert 0 < used < received[schema.NUM_DETECTIONS][0]
    masks = received.pop(schema.MASK_PROBS)[0], expected.pop(schema.MASK_PROBS)[0]
    np.testing.assert_allclose(masks[0][:used], masks[1][:used], atol=1e-5)
    np.testing.assert_array_equal(masks[0][used:], 0.5)  # not computed
    assert set(received) == set(expected)
    for name, value in received.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


class StoredModel:
    """Returns one detection of the whole image and a semantic map of class 2."""

    def __init__(self):
        tasks = ("instance", "semantic")
        self.config = {"semantic_things": "other", "max_detections": 1, "tasks": tasks}

    def panoptic_outputs(self, images, image_sizes, score_threshold):
        self.score_threshold = float(score_threshold)
        size = [float(side) for side in image_sizes[0]]
        return {
            schema.BOXES: tf.constant([[[0.0, 0.0, size[0] / 2, size[1]]]]),
            schema.SCORES: tf.constant([[0.8]]),
            schema.CLASSES: tf.constant([[3]]),
            schema.NUM_DETECTIONS: tf.constant([1]),
            schema.MASK_PROBS: tf.ones([1, 1, 28, 28]),
            schema.SEMANTIC_LOGITS: tf.tile(
                tf.constant([[[[0.0, 1.0, 2.0, 0.0, 0.0]]]]), [1, 8, 8, 1]
            ),
        }


def test_panoptic_only_returns_no_instances():
    split = SplitConfig(short_sides=(32,))
    stored, merge = StoredModel(), MergeConfig(score_threshold=0.7, stuff_area=0)
    predictor = Predictor(stored, CATEGORIES, merge, split, panoptic_only=True)
    outputs = predictor.predict_images(tf.zeros([1, 32, 32, 3], tf.uint8))
    assert stored.score_threshold == pytest.approx(0.7)
    assert schema.INSTANCES not in outputs
    assert schema.INSTANCES not in predictor.merged_signature()
    assert outputs[schema.CATEGORY_IDS][0, :3].numpy().tolist() == [4, 51, -1]
    assert outputs[schema.AREAS][0, :2].numpy().tolist() == [16 * 32, 16 * 32]
