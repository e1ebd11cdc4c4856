"""Several views of an image against one, and against a slow reference."""

import numpy as np
import pytest
import tensorflow as tf
from small_model import make_tiny_model
from test_predictor import CATEGORIES

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import MergeConfig, SplitConfig, TTAConfig
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.test_time_augmentation import AugmentedPredictor

pytestmark = pytest.mark.usefixtures("short_backbones")

SIZE = (64, 96)
SPLIT = SplitConfig(short_sides=(64,), max_long_side=128)
MERGE = MergeConfig(score_threshold=0.1, stuff_area=16)


@pytest.fixture(scope="module")
def model():
    return make_tiny_model(backbone="resnet18", norm="group_norm", freeze_at=0)


@pytest.fixture(scope="module")
def image():
    coarse = np.random.default_rng(0).integers(0, 255, (8, 12, 3))
    return coarse.repeat(8, 0).repeat(8, 1).astype(np.uint8)


def predict(predictor, image):
    """The graph's operations one by one: compiling them takes longer than one image."""
    outputs = predictor.predict_images(tf.constant(image[None]))
    return tf.nest.map_structure(lambda value: value[0].numpy(), outputs)


def augmented(model, image, short_sides, flip):
    tta = TTAConfig(short_sides=short_sides, max_long_side=192, flip=flip)
    return predict(AugmentedPredictor(model, CATEGORIES, MERGE, SPLIT, tta), image)


def test_one_view_equals_the_plain_predictor(model, image):
    expected = predict(Predictor(model, CATEGORIES, MERGE, SPLIT), image)
    received = augmented(model, image, (64,), flip=False)
    assert expected[schema.NUM_SEGMENTS] > 1
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), received, expected
    )


def test_a_mirrored_image_gives_the_mirrored_result(model, image):
    straight = augmented(model, image, (64,), flip=True)
    mirrored = augmented(model, image[:, ::-1], (64,), flip=True)
    differs = straight[schema.SEMANTIC_MAP] != mirrored[schema.SEMANTIC_MAP][:, ::-1]
    assert differs.mean() < 1e-3
    a, b = straight[schema.INSTANCES], mirrored[schema.INSTANCES]
    assert a[schema.NUM_DETECTIONS] == b[schema.NUM_DETECTIONS] == 7
    np.testing.assert_array_equal(a[schema.CLASSES], b[schema.CLASSES])
    np.testing.assert_allclose(a[schema.SCORES], b[schema.SCORES], atol=1e-5)
    flipped = b[schema.BOXES] * [1, -1, 1, -1] + [0, SIZE[1], 0, SIZE[1]]
    np.testing.assert_allclose(a[schema.BOXES], flipped[:, [0, 3, 2, 1]], atol=1e-3)
    masks = b[schema.MASK_PROBS][:, :, ::-1]
    np.testing.assert_allclose(a[schema.MASK_PROBS], masks, atol=1e-4)
    differs = straight[schema.PANOPTIC_MAP] != mirrored[schema.PANOPTIC_MAP][:, ::-1]
    assert differs.mean() < 1e-2


def test_two_sizes_against_a_slow_reference(model, image):
    """Probabilities averaged, boxes united and thinned class by class."""
    probs, candidates = 0, []
    for short_side in (64, 128):
        size = (short_side, short_side * 3 // 2)
        pixels = Predictor.resize(image[None], tf.constant(size))
        outputs = model(pixels)
        logits = tf.image.resize(outputs[schema.SEMANTIC_LOGITS], size)
        probs += tf.nn.softmax(tf.image.resize(logits, SIZE)).numpy()[0] / 2
        count = int(outputs[schema.NUM_DETECTIONS][0])
        boxes = outputs[schema.BOXES][0].numpy() * 64 / short_side
        candidates += zip(
            outputs[schema.SCORES][0].numpy()[:count],
            outputs[schema.CLASSES][0].numpy()[:count],
            boxes,
            strict=False,
        )
    received = augmented(model, image, (64, 128), flip=False)
    differs = received[schema.SEMANTIC_MAP] != probs.argmax(-1)
    assert differs.mean() < 1e-3

    kept = []
    for score, k, box in sorted(candidates, key=lambda candidate: -candidate[0]):
        if all(k != other or iou(box, b) <= model.config["nms_iou"] for _, other, b in kept):
            kept.append((score, k, box))
    assert len(kept) > 7
    instances = received[schema.INSTANCES]
    np.testing.assert_allclose(instances[schema.SCORES], [k[0] for k in kept[:7]], rtol=1e-5)
    np.testing.assert_array_equal(instances[schema.CLASSES], [k[1] for k in kept[:7]])
    np.testing.assert_allclose(instances[schema.BOXES], [k[2] for k in kept[:7]], atol=1e-3)


def iou(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return sides.prod() / (sum(areas) - sides.prod())


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_models_of_one_task(image, task):
    model = make_tiny_model(backbone="resnet18", norm="group_norm", freeze_at=0, tasks=(task,))
    received = augmented(model, image, (64,), flip=False)
    detects = task == "instance"
    assert (schema.INSTANCES in received) == detects
    assert (schema.SEMANTIC_MAP in received) != detects
    count = received[schema.NUM_SEGMENTS]
    assert count > 0
    assert set(received[schema.IS_THING][:count]) == {detects}
