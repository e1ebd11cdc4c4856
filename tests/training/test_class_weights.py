"""Weights of rare classes: numbers worked by hand, and names."""

import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.losses import ClassWeights, box_losses, semantic_loss
from tf_panoptic_fpn.training.class_weights import class_weights

TABLE = CategoryTable(
    (
        Category(7, "car", True),
        Category(2, "sky", False),
        Category(3, "bus", True),
        Category(9, "road", False),
    )
)


def entropy(logits, label):
    return np.log(np.exp(logits).sum()) - logits[label]


def test_names_become_classes():
    weights = {"car": 3.0, "road": 5.0}
    # By ascending id: bus, car, background; other, sky, road.
    assert class_weights(weights, TABLE) == ClassWeights((1.0, 3.0, 1.0), (1.0, 1.0, 5.0))
    every = TABLE.with_semantic_things("all")
    assert class_weights(weights, every) == ClassWeights((1.0, 3.0, 1.0), (1.0, 3.0, 1.0, 5.0))
    assert class_weights({}, TABLE) is None


def test_an_unknown_name_is_an_error():
    with pytest.raises(
        ConfigError, match=r"`train.class_weights` must name .* Received: \['cat'\]"
    ):
        class_weights({"car": 2.0, "cat": 2.0}, TABLE)


def test_the_semantic_loss_is_the_weighted_mean():
    logits = np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32)
    labels = np.array([[[0, 2], [-1, 2]]], np.int32)
    total, count = semantic_loss(ops.convert_to_tensor(logits), labels, (1.0, 1.0, 4.0))["semantic"]
    pixels = logits[0]
    expected = (
        entropy(pixels[0, 0], 0) + 4 * entropy(pixels[0, 1], 2) + 4 * entropy(pixels[1, 1], 2)
    )
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert float(count) == 9


def test_rois_are_weighed_in_the_loss_of_classes_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4, 3)).astype(np.float32)
    logits[0, 3] = np.nan  # padding
    deltas = rng.normal(size=(1, 4, 2, 4)).astype(np.float32)
    boxes = np.tile(np.float32([10, 10, 30, 50]), (1, 4, 1))
    classes = np.int32([[0, 1, 2, 0]])
    is_valid = np.array([[True, True, True, False]])
    arguments = [
        ops.convert_to_tensor(x) for x in (logits, deltas, boxes, classes, boxes, is_valid)
    ]
    terms = box_losses(*arguments, (2.0, 1.0, 0.5))
    rows = [entropy(logits[0, i], label) for i, label in enumerate((0, 1, 2))]
    np.testing.assert_allclose(terms["class"][0], 2 * rows[0] + rows[1] + 0.5 * rows[2], rtol=1e-6)
    assert float(terms["class"][1]) == 3.5
    plain = box_losses(*arguments)
    assert [float(x) for x in terms["box"]] == [float(x) for x in plain["box"]]
    assert float(plain["class"][1]) == 3
