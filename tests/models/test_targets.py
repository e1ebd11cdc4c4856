"""Targets worked by hand: boxes of 100 x 100 pixels, whose IoU is a number of rows."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.models.targets import anchor_targets, roi_targets, trim_padding

TRUTH = [0, 0, 100, 100]
FAR = [900, 900, 1000, 1000]
NUM_CLASSES = 3


def top_rows(count):
    """A box whose IoU with TRUTH is `count / 100`."""
    return [0, 0, count, 100]


def make_batch(boxes, classes, crowd=None, masks=None, seeds=(7,)):
    """Ground truth of one image, given to as many images as there are seeds."""
    count, images = len(boxes), len(seeds)
    if masks is None:
        masks = np.ones((count, 112, 112), "uint8")
    rows = {
        schema.GT_BOXES: np.array(boxes, "float32").reshape(count, 4),
        schema.GT_CLASSES: np.array(classes, "int32"),
        schema.GT_IS_CROWD: np.array(crowd or [False] * count, bool),
        schema.GT_MASKS: np.array(masks, "uint8").reshape(count, 112, 112),
    }
    batch = {name: np.stack([value] * images) for name, value in rows.items()}
    batch[schema.IMAGE_SEEDS] = np.array(seeds, "int32")
    return {name: ops.convert_to_tensor(value) for name, value in batch.items()}


def anchors_to_targets(anchors, batch, num_samples=256):
    result = anchor_targets(ops.convert_to_tensor(np.array(anchors, "float32")), batch, num_samples)
    return [ops.convert_to_numpy(value) for value in result]


def rois_to_targets(proposals, batch, num_samples=16, scores=None):
    images = batch[schema.IMAGE_SEEDS].shape[0]
    proposals = np.array(proposals, "float32").reshape(-1, 4)
    scores = np.zeros(len(proposals)) if scores is None else np.array(scores)
    arguments = (proposals, scores.astype("float32"), np.arange(len(proposals), dtype="int32"))
    arguments = [ops.convert_to_tensor(np.stack([value] * images)) for value in arguments]
    targets = roi_targets(*arguments, batch, num_samples, NUM_CLASSES)
    return {name: ops.convert_to_numpy(value) for name, value in targets.items()}


def classes_of_rois(targets):
    """Box -> class of the valid rois of the first image."""
    valid = targets["is_valid"][0]
    rois = map(tuple, targets["rois"][0][valid].astype(int).tolist())
    return dict(zip(rois, targets["classes"][0][valid].tolist(), strict=True))


def test_padding_is_trimmed_and_changes_nothing():
    boxes = [TRUTH, TRUTH, FAR, TRUTH, TRUTH]
    batch = make_batch(boxes, [2, -1, 1, -1, -1], seeds=(7, 8))
    trimmed = trim_padding(batch)
    if keras.backend.backend() == "tensorflow":
        assert trimmed[schema.GT_BOXES].shape == (2, 3, 4)
        assert trimmed[schema.GT_MASKS].shape == (2, 3, 112, 112)
    anchors = [top_rows(n) for n in (100, 71, 50, 20)] + [FAR]
    for received, expected in zip(
        anchors_to_targets(anchors, trimmed), anchors_to_targets(anchors, batch), strict=True
    ):
        np.testing.assert_array_equal(received, expected)
    expected = rois_to_targets(anchors, batch)
    for name, received in rois_to_targets(anchors, trimmed).items():
        np.testing.assert_array_equal(received, expected[name], err_msg=name)
    empty = trim_padding(make_batch([TRUTH, FAR], [-1, -1]))
    assert (anchors_to_targets(anchors, empty)[0] == 0).all()


def test_anchors_are_positive_from_70_percent_and_negative_below_30():
    rows = [100, 71, 70, 69, 31, 30, 29]
    labels, matched = anchors_to_targets([top_rows(n) for n in rows], make_batch([TRUTH], [0]))
    assert labels.tolist() == [[1, 1, 1, -1, -1, -1, 0]]
    assert labels.dtype == "int32"
    assert matched[0, labels[0] == 1].tolist() == [TRUTH] * 3


def test_the_best_anchor_of_a_truth_is_positive_however_poor():
    anchors = [[0, 0, 20, 100], [0, 0, 10, 100], [200, 200, 300, 220], [300, 300, 400, 400]]
    labels, matched = anchors_to_targets(anchors, make_batch([TRUTH, [200, 200, 300, 300]], [0, 1]))
    assert labels.tolist() == [[1, 0, 1, 0]]
    assert matched[0, 2].tolist() == [200, 200, 300, 300]


def test_at_most_half_of_the_sampled_anchors_are_positive():
    anchors = [TRUTH] * 10 + [FAR] * 10
    labels, _ = anchors_to_targets(anchors, make_batch([TRUTH], [0]), num_samples=8)
    assert (labels == 1).sum() == 4
    assert (labels == 0).sum() == 4
    labels, _ = anchors_to_targets([TRUTH] + [FAR] * 10, make_batch([TRUTH], [0]), num_samples=8)
    assert (labels == 1).sum() == 1
    assert (labels == 0).sum() == 7


def test_anchors_on_a_crowd_or_on_padding_are_negative():
    batch = make_batch([TRUTH, FAR, [0, 0, 50, 50]], [0, -1, 1], crowd=[True, False, False])
    labels, _ = anchors_to_targets([TRUTH, FAR, [0, 0, 50, 50]], batch)
    assert labels.tolist() == [[0, 0, 1]]


def test_rois_are_foreground_from_50_percent():
    targets = rois_to_targets([top_rows(n) for n in (51, 50, 49, 90)], make_batch([TRUTH], [2]))
    assert classes_of_rois(targets) == {
        (0, 0, 51, 100): 2,
        (0, 0, 50, 100): 2,
        (0, 0, 49, 100): NUM_CLASSES,
        (0, 0, 90, 100): 2,
        tuple(TRUTH): 2,  # the ground truth is a proposal too
    }


def test_no_roi_is_foreground_for_being_the_best():
    targets = rois_to_targets([top_rows(40)], make_batch([TRUTH], [2]))
    assert classes_of_rois(targets) == {(0, 0, 40, 100): NUM_CLASSES, tuple(TRUTH): 2}


def test_at_most_a_quarter_of_the_sampled_rois_is_foreground():
    targets = rois_to_targets([top_rows(90)] * 10 + [FAR] * 10, make_batch([TRUTH], [1]), 8)
    assert targets["classes"].tolist() == [[1, 1] + [NUM_CLASSES] * 6]
    assert targets["is_foreground"].tolist() == [[True, True]]
    assert targets["is_valid"].all()
    assert targets["masks"].shape == (1, 2, 28, 28)


def test_slots_that_nothing_fills_are_not_valid():
    targets = rois_to_targets([FAR], make_batch([TRUTH], [1]), 8)
    assert targets["is_valid"].tolist() == [[True, True] + [False] * 6]
    assert targets["rois"][0].astype(int).tolist() == [TRUTH, FAR] + [[0, 0, 0, 0]] * 6
    assert targets["is_foreground"].tolist() == [[True, False]]


def test_rois_of_a_crowd_are_background():
    targets = rois_to_targets([TRUTH], make_batch([TRUTH, FAR], [1, 0], crowd=[True, False]))
    assert classes_of_rois(targets) == {tuple(TRUTH): NUM_CLASSES, tuple(FAR): 0}


def test_padding_is_neither_a_truth_nor_a_roi():
    batch = make_batch([TRUTH, FAR, FAR], [1, -1, -1])
    targets = rois_to_targets([FAR, [0, 0, 9, 9]], batch, scores=[0.0, -np.inf])
    assert classes_of_rois(targets) == {tuple(TRUTH): 1, tuple(FAR): NUM_CLASSES}


def test_each_roi_gets_the_box_class_and_mask_of_its_truth():
    upper = np.zeros((112, 112), "uint8")
    upper[:56] = 1
    batch = make_batch([TRUTH, FAR], [2, 1], masks=[upper, 1 - upper])
    targets = rois_to_targets([[950, 900, 1000, 1000], [0, 0, 50, 100]], batch)
    rois = targets["rois"][0].astype(int).tolist()
    expected_masks = {
        tuple(TRUTH): [1, 0],
        tuple(FAR): [0, 1],
        (950, 900, 1000, 1000): [1, 1],
        (0, 0, 50, 100): [1, 1],
    }
    assert {tuple(roi) for roi in rois[:4]} == set(expected_masks)
    for i, roi in enumerate(rois[:4]):
        is_first = roi[0] < 500
        assert targets["classes"][0, i] == (2 if is_first else 1)
        assert targets["matched_boxes"][0, i].tolist() == (TRUTH if is_first else FAR)
        mask = targets["masks"][0, i]
        halves = [mask[:14].mean(), mask[14:].mean()]
        assert halves == expected_masks[tuple(roi)], roi


def test_anchors_and_rois_of_an_image_are_drawn_apart():
    """The same candidates, all background, with the same names and the same seed."""
    boxes = [[200 + i, 200, 300 + i, 300] for i in range(64)]
    batch = make_batch([TRUTH], [0])
    labels, _ = anchors_to_targets(boxes, batch, num_samples=8)
    drawn_anchors = set(np.flatnonzero(labels[0] == 0))
    rois = rois_to_targets(boxes, batch, num_samples=9)["rois"][0, 1:]
    drawn_rois = {int(roi[0]) - 200 for roi in rois}
    assert len(drawn_anchors) == len(drawn_rois) == 8
    assert len(drawn_anchors & drawn_rois) <= 4  # 1 is expected


@pytest.mark.parametrize("kind", ["anchors", "rois"])
def test_the_seed_of_an_image_decides_the_draw(kind):
    boxes = [[200 + i, 200, 300 + i, 300] for i in range(64)]
    batch = make_batch([TRUTH], [0], seeds=(1, 2, 1))
    if kind == "anchors":
        drawn = anchors_to_targets(boxes, batch, num_samples=8)[0]
    else:
        drawn = rois_to_targets(boxes, batch, num_samples=8)["rois"]
    assert (drawn[0] == drawn[2]).all()
    assert (drawn[0] != drawn[1]).any()


def test_ground_truth_without_rows():
    batch = make_batch([], [], seeds=(1, 2))
    labels, matched = anchors_to_targets([TRUTH, FAR], batch)
    assert labels.tolist() == [[0, 0], [0, 0]]
    assert matched.shape == (2, 2, 4)
    targets = rois_to_targets([TRUTH, FAR], batch, 8)
    assert targets["is_valid"].sum(axis=1).tolist() == [2, 2]
    assert (targets["classes"] == NUM_CLASSES).all()
    assert not targets["is_foreground"].any()
    assert targets["masks"].shape == (2, 2, 28, 28)


def test_float64_boxes_stay_float64():
    batch = make_batch([TRUTH], [0])
    anchors = ops.convert_to_tensor(np.array([TRUTH, FAR], "float64"))
    assert anchor_targets(anchors, batch, 4)[1].dtype == "float64"
