"""Boundary IoU: hand-worked cases and a slow reference by the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.metrics.boundary_iou import BoundaryIoU, mask_boundary
from tf_panoptic_fpn.metrics.coco_ap import coco_ap


def slow_boundary(mask):
    """Erodes by 3x3, once for each pixel of distance; what is beyond the image is background."""
    height, width = mask.shape
    eroded = mask.astype(bool)
    for _ in range(max(round(0.02 * np.sqrt(height**2 + width**2)), 1)):
        padded = np.pad(eroded, 1)
        shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        eroded = np.all(shifts, axis=0)
    return mask.astype(bool) & ~eroded


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([(40, 33), (1, 40), (130, 175), (9, 300)]),
    num_boxes=st.integers(0, 8),
)
def test_mask_boundary_against_the_definition(seed, size, num_boxes):
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for value in [1] * num_boxes + [0]:
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(1, size[0] + 1), rng.integers(1, size[1] + 1)
        mask[y : y + height, x : x + width] = value
    before = mask.copy()
    np.testing.assert_array_equal(mask_boundary(mask), slow_boundary(mask))
    np.testing.assert_array_equal(mask, before)


def test_mask_boundary_by_hand():
    """In 60 x 80 pixels the distance is 2; the left edge of the image is a border, too."""
    mask = np.zeros((60, 80), bool)
    mask[10:20, 0:12] = True
    expected = mask.astype(np.uint8)
    expected[12:18, 2:10] = 0
    np.testing.assert_array_equal(mask_boundary(mask), expected)
    assert mask_boundary(np.ones((60, 80), bool)).sum() == 60 * 80 - 56 * 76
    assert mask_boundary(np.zeros((60, 80), bool)).sum() == 0


def test_semantic_maps_by_hand():
    """Left and right halves; predicted one column too far to the left, below a void strip."""
    gt = np.zeros((50, 50), int)  # distance 1
    gt[:, 25:] = 1
    pred = np.zeros((50, 50), int)
    pred[:, 24:] = 1
    gt[:5], pred[:5] = 255, 3
    metric = BoundaryIoU(["left", "right", "absent"])
    metric.update(gt, pred)
    # Left: 45 x 25 and 45 x 24 with borders of 2*25 + 2*43 and 2*24 + 2*43; the two differ in
    # the column 24 of one (45) and column 23 of the other (43 without its ends).
    left = (2 * 24 + 43) / (2 * 25 + 2 * 43 + 43)
    right = (2 * 25 + 43) / (2 * 26 + 2 * 43 + 43)
    result = metric.result()
    assert result == {
        "boundary_mIoU": pytest.approx((left + right) / 2),
        "per_class": {"left": pytest.approx(left), "right": pytest.approx(right), "absent": None},
    }


def test_a_perfect_prediction_is_1_whatever_it_says_of_void():
    rng = np.random.default_rng(0)
    gt = rng.choice([0, 1, 2], (6, 6)).repeat(10, axis=0).repeat(10, axis=1)
    pred = gt.copy()
    gt[20:40, 15:33] = 255
    metric = BoundaryIoU(["a", "b", "c"])
    metric.update(gt, pred)
    assert metric.result()["boundary_mIoU"] == 1


def test_merge_and_errors():
    rng = np.random.default_rng(1)
    names = ["a", "b"]
    whole, first, second = BoundaryIoU(names), BoundaryIoU(names), BoundaryIoU(names)
    assert whole.result()["boundary_mIoU"] is None
    for part in (first, second):
        gt, pred = rng.integers(0, 2, (2, 9, 8))
        for metric in (whole, part):
            metric.update(gt, pred)
    assert first.result() != whole.result()
    first.merge(second)
    assert first.result() == whole.result()
    with pytest.raises(ValueError, match="same classes"):
        first.merge(BoundaryIoU(["a"]))
    with pytest.raises(DataError, match=r"a\.png: semantic classes must lie in 0\.\.1"):
        whole.update(np.zeros((2, 2), int), np.full((2, 2), 2), "a.png")


def rle(mask):
    return mask_api.encode(np.asfortranarray(mask, np.uint8))


def square_and(prediction):
    """Ground truth of one square of 40 in 100 x 100 pixels, and one prediction as results."""
    gt = np.zeros((100, 100), bool)
    gt[20:60, 20:60] = True
    annotation = {"image_id": 1, "category_id": 5, "iscrowd": 0, "area": 1600.0}
    annotation |= {"bbox": [20, 20, 40, 40], "segmentation": rle(gt)}
    ground_truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 5, "name": "square"}],
        "annotations": [annotation],
    }
    result = {"image_id": 1, "category_id": 5, "score": 0.5, "segmentation": rle(prediction)}
    return ground_truth, [result], gt


@pytest.mark.parametrize("extra_rows", [0, 2, 10])
def test_boundary_ap_counts_thresholds_below_the_smaller_iou(extra_rows):
    prediction = np.zeros((100, 100), bool)
    prediction[20 : 60 + extra_rows, 20:60] = True
    ground_truth, results, gt = square_and(prediction)
    borders = slow_boundary(gt), slow_boundary(prediction)
    boundary_iou = (borders[0] & borders[1]).sum() / (borders[0] | borders[1]).sum()
    mask_iou = 40 / (40 + extra_rows)
    assert boundary_iou < mask_iou or extra_rows == 0
    for iou_type, iou in (("segm", mask_iou), ("boundary", boundary_iou)):
        expected = (iou >= np.arange(0.5, 1.0, 0.05) - 1e-9).mean()
        assert coco_ap(ground_truth, results, iou_type)["AP"] == pytest.approx(expected)


def test_a_crowd_keeps_the_mask_iou():
    """A small find deep within a crowd has no boundary in common with it, and is not wrong."""
    prediction = np.zeros((100, 100), bool)
    prediction[35:45, 35:45] = True
    ground_truth, inner, gt = square_and(prediction)
    ground_truth["annotations"].append({**ground_truth["annotations"][0], "iscrowd": 1})
    results = [{**inner[0], "score": 0.9}, {**inner[0], "segmentation": rle(gt)}]
    assert coco_ap(ground_truth, results, "boundary")["AP"] == pytest.approx(1)
    ground_truth["annotations"].pop()
    assert coco_ap(ground_truth, results, "boundary")["AP"] == pytest.approx(0.5)
