"""From RPN output to proposals, and from the box head's output to detections, by hand."""

import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.models.box_head import Detections
from tf_panoptic_fpn.models.proposals import Proposals

SIDES = (16, 8, 4, 2, 1)  # of P2..P6 of a canvas of 64 x 64
OFF = -50.0


def propose(layer, chosen, image_size=(64, 64), **options):
    """Runs `layer` on logits of -50, but for `chosen`: (level, y, x) -> (logit, deltas)."""
    features = {f"P{i + 2}": np.zeros((1, s, s, 4), "float32") for i, s in enumerate(SIDES)}
    logits = [np.full((1, s * s), OFF, "float32") for s in SIDES]
    deltas = [np.zeros((1, s * s, 4), "float32") for s in SIDES]
    for (level, y, x), (logit, delta) in chosen.items():
        cell = y * SIDES[level - 2] + x
        logits[level - 2][0, cell], deltas[level - 2][0, cell] = logit, delta
    sizes = ops.convert_to_tensor([image_size], dtype="int32")
    result = layer(features, logits, deltas, sizes, **options)
    return [ops.convert_to_numpy(value)[0] for value in result]


def small_proposals(**changes):
    options = {"anchor_sizes": (4, 8, 16, 32, 64), "anchor_ratios": (1.0,), "top_k_test": (9, 20)}
    return Proposals(**{**options, **changes})


def test_anchors_are_decoded_and_sorted():
    none, shifted = (0, 0, 0, 0), (0.5, -0.25, 0, np.log(2))
    boxes, scores, indices = propose(
        small_proposals(), {(2, 1, 2): (1.0, none), (4, 2, 1): (3.0, shifted)}
    )
    # Cell (2, 1) of P4 is centred on (32, 16), its anchor 16 x 16.
    np.testing.assert_allclose(boxes[:2], [[32, 0, 48, 28], [2, 6, 6, 10]], atol=1e-5)
    assert scores[:2].tolist() == [3.0, 1.0]
    assert indices[:2].tolist() == [16 * 16 + 8 * 8 + 2 * 4 + 1, 1 * 16 + 2]
    assert scores[2] < 0


def test_proposals_are_clipped_to_their_image():
    boxes, _, _ = propose(small_proposals(), {(6, 0, 0): (1.0, (0, 0, 3, 3))}, (50, 40))
    assert boxes[0].tolist() == [0, 0, 50, 40]


def test_what_is_empty_after_clipping_is_no_proposal():
    boxes, scores, _ = propose(small_proposals(), {(2, 3, 15): (1.0, (0, 0, 0, 0))}, (64, 40))
    assert scores.max() < 1  # cell 15 is centred on x = 60
    assert boxes[:, 3].max() <= 40
    assert (boxes[scores == -np.inf] == 0).all()


def test_a_better_proposal_suppresses_above_the_threshold():
    # P2 anchors of 4 x 4 made 40 x 40, one 4 pixels beside the other: IoU 36 / 44 = .82.
    big = (0, 0, np.log(10), np.log(10))
    chosen = {(2, 7, 7): (1.0, big), (2, 7, 8): (2.0, big)}
    for threshold, count in ((0.81, 1), (0.83, 2)):
        scores = propose(small_proposals(nms_iou=threshold), chosen)[1]
        assert (scores > 0).sum() == count
    # Proposals of different levels suppress nothing: P3's at the same place, 8 x 8 made 40 x 40.
    chosen[3, 3, 3] = (3.0, (0.5, 0.5, np.log(5), np.log(5)))
    assert (propose(small_proposals(nms_iou=0.81), chosen)[1] > 0).sum() == 2


def test_training_has_numbers_of_its_own():
    layer = small_proposals(top_k_train=(6, 5), top_k_test=(3, 20))
    chosen = {(2, y, x): (1.0 + y + x, (0, 0, 0, 0)) for y in (2, 6, 10) for x in (2, 6, 10)}
    boxes, scores, _ = propose(layer, chosen)
    assert boxes.shape == (15, 4)  # 3 a level
    assert (scores > 0).sum() == 3
    boxes, scores, _ = propose(layer, chosen, training=True)
    assert boxes.shape == (5, 4)
    assert (scores > 0).sum() == 5
    assert scores.tolist() == sorted(scores, reverse=True)


def detect(rois, logits, deltas=None, image_size=(100, 100), roi_scores=None, **options):
    """Detections of one image: rois `[R, 4]`, logits `[R, K + 1]`, deltas `[R, K, 4]`."""
    logits = np.array(logits, "float32")
    if deltas is None:
        deltas = np.zeros((len(rois), logits.shape[1] - 1, 4))
    scores = np.zeros(len(rois)) if roi_scores is None else np.array(roi_scores)
    arguments = [np.array(rois), scores, logits, np.array(deltas)]
    arguments = [ops.convert_to_tensor(a[None].astype("float32")) for a in arguments]
    sizes = ops.convert_to_tensor([image_size], dtype="int32")
    result = Detections(max_detections=6, **options)(*arguments, sizes)
    boxes, scores, classes, count = (ops.convert_to_numpy(value)[0] for value in result)
    assert (boxes[count:] == 0).all() and (scores[count:] == 0).all()
    assert (classes[count:] == -1).all()
    return boxes[:count], scores[:count], classes[:count]


def log(*probabilities):
    return np.log(probabilities)


def test_each_class_above_the_threshold_is_a_detection():
    rois = [[0, 0, 10, 10], [50, 50, 60, 60]]
    logits = [log(0.6, 0.3, 0.1), log(0.04, 0.06, 0.9)]
    boxes, scores, classes = detect(rois, logits, score_threshold=0.05)
    np.testing.assert_allclose(scores, [0.6, 0.3, 0.06], atol=1e-6)
    assert classes.tolist() == [0, 1, 1]
    assert boxes.tolist() == [rois[0], rois[0], rois[1]]


def test_the_deltas_of_a_class_move_its_box():
    # Weights 10, 10, 5, 5: dy 5 is half a height, dw 5 log 2 doubles the width.
    deltas = [[[5, 0, 0, 0], [0, 0, 0, 5 * np.log(2)]]]
    boxes, _, classes = detect([[20, 20, 30, 30]], [log(0.5, 0.4, 0.1)], deltas)
    assert classes.tolist() == [0, 1]
    np.testing.assert_allclose(boxes, [[25, 20, 35, 30], [20, 15, 30, 35]], atol=1e-4)


def test_detections_are_clipped_to_their_image():
    deltas = [[[0, 0, 5 * np.log(10), 5 * np.log(10)]]]
    boxes, _, _ = detect([[20, 20, 40, 40]], [log(0.9, 0.1)], deltas, image_size=(90, 70))
    assert boxes.tolist() == [[0, 0, 90, 70]]


def test_suppression_is_within_a_class():
    rois = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4]]  # IoU .8 and .4 with the first
    logits = [log(0.5, 0.04, 0.46), log(0.6, 0.04, 0.36), log(0.4, 0.3, 0.3)]
    boxes, scores, classes = detect(rois, logits, nms_iou=0.5)
    # The third's IoU with the second is 4 / 8, not above the threshold.
    np.testing.assert_allclose(scores, [0.6, 0.4, 0.3], atol=1e-6)
    assert classes.tolist() == [0, 0, 1]
    assert boxes.tolist() == [rois[1], rois[2], rois[2]]


def test_padding_among_the_rois_is_left_out():
    rois = [[0, 0, 10, 10], [50, 50, 60, 60]]
    _, scores, _ = detect(rois, [log(0.9, 0.1), log(0.8, 0.2)], roi_scores=[-np.inf, -3.0])
    np.testing.assert_allclose(scores, [0.8], atol=1e-6)


def test_the_best_are_kept():
    rois = [[10 * i, 0, 10 * i + 9, 9] for i in range(9)]
    probabilities = [0.2, 0.9, 0.3, 0.8, 0.4, 0.7, 0.5, 0.6, 0.1]
    _, scores, _ = detect(rois, [log(p, 1 - p) for p in probabilities])
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_leaves_geometry_alone(policy):
    """Coordinates above 2048, where float16 counts in twos and bfloat16 in sixteens."""
    rois = [[2049.3, 3001.7, 2101.1, 3055.9]]
    deltas = [[[0.123, 0.456, 0.0789, -0.0123]]]
    arguments = (rois, [log(0.9, 0.1)], deltas, (4000, 4000))
    half, full = detect(*arguments, dtype=policy), detect(*arguments, dtype="float32")
    for received, expected in zip(half, full, strict=True):
        assert received.dtype == expected.dtype
        np.testing.assert_array_equal(received, expected)
    chosen = {(4, 2, 1): (3.0071, (500.123, 700.456, 0.0789, -0.0123))}
    results = [
        propose(small_proposals(dtype=dtype), chosen, (20000, 20000))
        for dtype in (policy, "float32")
    ]
    assert results[0][0].dtype == results[0][1].dtype == "float32"
    assert results[0][0][0].min() > 2048
    for received, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(received, expected)
