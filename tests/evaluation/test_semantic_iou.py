"""Mean IoU: hand-worked cases."""

import numpy as np
import pytest

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.semantic_iou import SemanticIoU

NAMES = ["other", "sky", "road", "snow"]


def test_by_hand():
    """other 2 of 3, sky 1 of 3, road predicted only: 0 of 1, snow absent; 255 left out."""
    metric = SemanticIoU(NAMES)
    metric.update(np.array([[0, 0, 1, 1, 1, 255]]), np.array([[0, 0, 1, 0, 2, 3]]))
    assert metric.result() == {
        "mIoU": pytest.approx((2 / 3 + 1 / 3 + 0) / 3),
        "pixel_accuracy": pytest.approx(3 / 5),
        "per_class": {
            "other": pytest.approx(2 / 3),
            "sky": pytest.approx(1 / 3),
            "road": 0,
            "snow": None,
        },
    }


def test_nothing_labelled():
    metric = SemanticIoU(NAMES)
    metric.update(np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.int32))
    assert metric.result() == {
        "mIoU": None,
        "pixel_accuracy": None,
        "per_class": dict.fromkeys(NAMES),
    }


def test_merge_equals_one_stream():
    rng = np.random.default_rng(0)
    gt = rng.choice([0, 1, 2, 255], (4, 8, 9)).astype(np.uint8)
    pred = rng.integers(0, 4, (4, 8, 9), np.int32)
    whole, first, second = SemanticIoU(NAMES), SemanticIoU(NAMES), SemanticIoU(NAMES)
    for index in range(4):
        whole.update(gt[index], pred[index])
        (first if index % 2 else second).update(gt[index], pred[index])
    assert first.result() != whole.result()
    first.merge(second)
    assert first.result() == whole.result()
    with pytest.raises(ValueError, match="same classes"):
        first.merge(SemanticIoU(NAMES[:2]))


def test_errors():
    metric = SemanticIoU(NAMES)
    with pytest.raises(DataError, match=r"a\.png: prediction and ground truth must have one size"):
        metric.update(np.zeros((2, 3), int), np.zeros((3, 2), int), image="a.png")
    with pytest.raises(DataError, match=r"a.png: .* must lie in 0\.\.3\. Received: 0\.\.4"):
        metric.update(np.array([[0, 4]]), np.array([[0, 0]]), image="a.png")
    with pytest.raises(DataError, match=r"Received: -1\.\.0"):
        metric.update(np.array([[0, 3]]), np.array([[0, -1]]))
    with pytest.raises(ValueError, match="distinct"):
        SemanticIoU(["sky", "sky"])
