"""A SavedModel as a predictor, with one that returns the same for every image."""

import numpy as np
import pytest
import tensorflow as tf
from test_predictor import CATEGORIES

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.inference.saved_model import SavedModelPredictor


def constants(image):
    """Detections of the categories 2 and 5, and padding."""
    size = tf.shape(image)[1:3]
    return {
        "panoptic_map": tf.ones(size, tf.int32)[None],
        "category_ids": tf.constant([[51, 0]]),
        "is_thing": tf.constant([[False, False]]),
        "scores": tf.constant([[1.0, 0.0]]),
        "areas": tf.reduce_prod(size)[None, None],
        "boxes": tf.zeros([1, 2, 4]),
        "num_segments": tf.constant([1]),
        "semantic_map": tf.zeros(size, tf.int32)[None],
        "detection_boxes": tf.zeros([1, 3, 4]),
        "detection_scores": tf.constant([[0.9, 0.8, 0.0]]),
        "detection_category_ids": tf.constant([[2, 5, 0]]),
        "detection_mask_probs": tf.zeros([1, 3, 28, 28]),
        "num_detections": tf.constant([2]),
        "panoptic_png_bytes": tf.constant([b"x"]),
    }


def export(folder, name, function):
    module = tf.Module()
    module.serve = tf.function(
        lambda images: function(images),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")],
    )
    tf.saved_model.save(module, str(folder), signatures={name: module.serve})


def test_category_ids_become_classes(tmp_path):
    export(tmp_path, "tensor", constants)
    predictor = SavedModelPredictor(tmp_path, CATEGORIES)
    assert (predictor.merge, predictor.categories) == (MergeConfig(), CATEGORIES)  # not exported
    (prediction,) = predictor.run(np.zeros((1, 4, 6, 3), np.uint8))
    assert prediction[schema.PANOPTIC_MAP].shape == (4, 6)
    assert prediction[schema.SEMANTIC_MAP].shape == (4, 6)
    assert prediction[schema.NUM_SEGMENTS] == 1
    instances = prediction[schema.INSTANCES]
    np.testing.assert_array_equal(instances[schema.CLASSES], [1, 4, -1])
    assert instances[schema.NUM_DETECTIONS] == 2
    fewer = CategoryTable(CATEGORIES.categories[:4])
    with pytest.raises(DataError, match=r"that the data set lacks: \[5\]"):
        SavedModelPredictor(tmp_path, fewer)(np.zeros((4, 6, 3), np.uint8))


def test_the_pixel_range_is_exported_with_the_model(tmp_path):
    export(tmp_path, "tensor", constants)
    assert SavedModelPredictor(tmp_path, CATEGORIES).pixel_range == (0, 65535)
    (tmp_path / "assets/pixel_range.json").write_text("[0, 4095]", encoding="utf-8")
    assert SavedModelPredictor(tmp_path, CATEGORIES).pixel_range == (0, 4095)


def test_padding_is_told_from_the_category_0(tmp_path):
    """By the number of detections; earlier exports pad with 0, today's with -1."""
    table = CategoryTable((Category(0, "cat", True), Category(51, "sky", False)))
    served = {**constants(np.zeros((1, 4, 6, 3))), "num_detections": tf.constant([1])}
    for padding in (0, -1):
        outputs = {**served, "detection_category_ids": tf.constant([[0, padding, padding]])}
        export(tmp_path / str(padding), "tensor", lambda images, outputs=outputs: outputs)
        predictor = SavedModelPredictor(tmp_path / str(padding), table)
        (prediction,) = predictor.run(np.zeros((1, 4, 6, 3), np.uint8))
        np.testing.assert_array_equal(prediction[schema.INSTANCES][schema.CLASSES], [0, -1, -1])


def test_a_model_of_one_task(tmp_path):
    names = ("panoptic_map", "category_ids", "is_thing", "scores", "areas", "boxes", "num_segments")
    export(
        tmp_path,
        "tensor",
        lambda images: {n: v for n, v in constants(images).items() if n in names},
    )
    images = np.zeros((1, 4, 6, 3), np.uint8)
    (prediction,) = SavedModelPredictor(tmp_path, CATEGORIES).run(images)
    assert set(prediction) == set(names)


def test_folders_without_what_is_needed(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no saved_model\.pb"):
        SavedModelPredictor(tmp_path, CATEGORIES)
    export(tmp_path, "other", constants)
    with pytest.raises(ConfigError, match=r"signature `tensor`\. Received: \['other'\]"):
        SavedModelPredictor(tmp_path, CATEGORIES)
    (tmp_path / "saved_model.pb").write_bytes(b"cut")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        SavedModelPredictor(tmp_path, CATEGORIES)
