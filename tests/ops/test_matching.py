import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.ops.matching import match_boxes

SWAP = [1, 0, 3, 2]


def match(gt_boxes, gt_valid, boxes, thresholds, low_quality):
    result = match_boxes(
        np.array(gt_boxes, "float32"),
        np.array(gt_valid),
        np.array(boxes, "float32"),
        thresholds,
        low_quality,
    )
    return [ops.convert_to_numpy(x) for x in result]


@pytest.mark.parametrize(
    "name, thresholds, low_quality", [("rpn", (0.3, 0.7), True), ("roi", (0.5, 0.5), False)]
)
def test_golden(units, name, thresholds, low_quality):
    gt_boxes, boxes = units["matcher_gt"][:, SWAP], units["matcher_boxes"][:, SWAP]
    index, labels = match(gt_boxes[None], np.ones((1, 6), bool), boxes, thresholds, low_quality)
    np.testing.assert_array_equal(index[0], units[f"matcher_{name}_idx"])
    np.testing.assert_array_equal(labels[0], units[f"matcher_{name}_label"])
    assert set(labels[0]) == ({1, 0, -1} if name == "rpn" else {1, 0})
    assert index.dtype == labels.dtype == "int32"


def test_thresholds_include_equality():
    # IoU with the truth: 1/2, 1/4 and 3/4, all exact in float32.
    boxes = [[0, 0, 4, 2], [0, 0, 4, 1], [0, 0, 4, 3]]
    _, labels = match([[[0, 0, 4, 4]]], [[True]], boxes, (0.25, 0.5), False)
    np.testing.assert_array_equal(labels[0], [1, -1, 1])
    _, labels = match([[[0, 0, 4, 4]]], [[True]], boxes, (0.5, 0.75), False)
    np.testing.assert_array_equal(labels[0], [-1, 0, 1])


def test_low_quality_keeps_ties_and_the_best_index():
    # Both boxes are the best of truth 1, at IoU 1/4; the second overlaps truth 0 more.
    gt_boxes = [[[0, 0, 8, 8], [0, 8, 4, 10]]]
    boxes = [[0, 8, 1, 10], [0, 2, 8, 8], [0, 8, 1, 10], [20, 20, 30, 30]]
    index, labels = match(gt_boxes, [[True, True]], boxes, (0.3, 0.7), True)
    np.testing.assert_array_equal(labels[0], [1, 1, 1, 0])
    np.testing.assert_array_equal(index[0], [1, 0, 1, 0])
    _, labels = match(gt_boxes, [[True, True]], boxes, (0.3, 0.7), False)
    np.testing.assert_array_equal(labels[0], [0, 1, 0, 0])


def test_low_quality_does_not_change_the_matched_index():
    # Box 0 is the best of both truths; it stays matched to truth 1, which it overlaps more.
    gt_boxes = [[[0, 0, 10, 1], [0, 0, 10, 8]]]
    index, labels = match(gt_boxes, [[True, True]], [[0, 0, 10, 10]], (0.3, 0.9), True)
    assert index[0, 0] == 1 and labels[0, 0] == 1


def test_padding_matches_nothing():
    gt_boxes = [[[0, 0, 4, 4], [0, 0, 8, 8]]] * 2
    boxes = [[0, 0, 4, 4], [0, 0, 8, 8]]
    index, labels = match(gt_boxes, [[True, False], [False, False]], boxes, (0.3, 0.7), True)
    np.testing.assert_array_equal(labels, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(index, [[0, 0], [0, 0]])


def test_truth_that_overlaps_nothing_makes_no_positives():
    _, labels = match(
        [[[50, 50, 60, 60]]], [[True]], [[0, 0, 4, 4], [8, 8, 9, 9]], (0.3, 0.7), True
    )
    np.testing.assert_array_equal(labels, [[0, 0]])


def test_boxes_of_each_image():
    gt_boxes = [[[0, 0, 4, 4]], [[10, 10, 14, 14]]]
    boxes = [[[0, 0, 4, 4], [10, 10, 14, 14]], [[0, 0, 4, 4], [10, 10, 14, 14]]]
    _, labels = match(gt_boxes, [[True], [True]], boxes, (0.5, 0.5), False)
    np.testing.assert_array_equal(labels, [[1, 0], [0, 1]])


def test_compiled_equals_eager(units, compiled):
    gt_boxes, boxes = units["matcher_gt"][None, :, SWAP], units["matcher_boxes"][:, SWAP]
    valid = np.array([[True, True, True, False, True, True]])
    function = compiled(lambda *a: match_boxes(*a, (0.3, 0.7), True))
    index, labels = function(*map(ops.convert_to_tensor, (gt_boxes, valid, boxes)))
    expected_index, expected_labels = match(gt_boxes, valid, boxes, (0.3, 0.7), True)
    np.testing.assert_array_equal(ops.convert_to_numpy(index), expected_index)
    np.testing.assert_array_equal(ops.convert_to_numpy(labels), expected_labels)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
@pytest.mark.parametrize("traced", [False, True])
def test_some_at_a_time_is_as_all_at_once(monkeypatch, count, traced):
    """Ties among them: coordinates are few whole numbers."""
    rng = np.random.default_rng(count)
    corners = [np.sort(rng.integers(0, 6, (2, n, 2, 2)), axis=2) for n in (count, 40)]
    gt_boxes, boxes = (c.reshape(2, -1, 4).astype("float32") for c in corners)
    arguments = gt_boxes, rng.random((2, count)) < 0.8, boxes, (0.3, 0.7), True
    expected = match(*arguments)
    assert len(set(expected[0].flat)) >= min(count, 2)
    monkeypatch.setattr("tf_panoptic_fpn.ops.matching.GT_AT_A_TIME", 3)
    if traced:
        tf = pytest.importorskip("tensorflow")
        specs = [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None], tf.bool)]
        function = tf.function(
            lambda gt_boxes, valid: match_boxes(gt_boxes, valid, boxes, *arguments[3:]),
            input_signature=specs,
            autograph=False,
        )
        received = [value.numpy() for value in function(*arguments[:2])]
    else:
        received = match(*arguments)
    for value, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(value, other)
