"""AP, recall and curves against pycocotools, to the last bit, on whatever can occur."""

import collections

import numpy as np
import pytest
from coco_rules import assert_equal_to_official, evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from tf_panoptic_fpn.metrics.coco_ap import coco_ap

HEIGHT, WIDTH = 120, 140  # room for objects of all sizes: small below 32 x 32, large from 96 x 96


def entry_of(mask, image_id, category_id):
    rle = mask_api.encode(np.asfortranarray(mask))
    box = mask_api.toBbox(rle).tolist()
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }


def draw_mask(rng, corners):
    """A rectangle, of which a part is cut out by chance."""
    top, left, bottom, right = corners
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    if rng.random() < 0.4:
        mask[rng.integers(top, bottom) : bottom - 2, rng.integers(left, right) : right] = 0
    return mask


def draw_corners(rng):
    height, width = np.minimum(np.exp(rng.uniform(0, 4.8, 2)).astype(int) + 1, (110, 130))
    top, left = rng.integers(0, HEIGHT - height), rng.integers(0, WIDTH - width)
    return np.array([top, left, top + height, left + width])


def move(rng, corners, far):
    """The corners moved by some pixels; often by none, so that IoUs tie."""
    moved = corners + rng.integers(-far, far + 1, 4) * (rng.random(4) < 0.5)
    top, left, bottom, right = np.clip(moved, 0, (HEIGHT - 1, WIDTH - 1, HEIGHT, WIDTH))
    return np.array([top, left, max(bottom, top + 1), max(right, left + 1)])


def draw_case(seed, num_images, num_classes, num_results, has_text_ids):
    """Ground truth and results: doubled and crowded objects, equal scores, wrong classes."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(100)[:num_images].tolist()  # neither in order nor without gaps
    image_ids = [f"image {number}" for number in ids] if has_text_ids else ids
    annotations, results = [], []
    for image_id in image_ids:
        objects = [draw_corners(rng) for _ in range(rng.integers(0, 6))]
        objects += [move(rng, corners, 3) for corners in objects if rng.random() < 0.3]
        classes = rng.integers(1, num_classes + 1, len(objects))
        for corners, category_id in zip(objects, classes.tolist(), strict=True):
            entry = entry_of(draw_mask(rng, corners), image_id, category_id)
            area = mask_api.area(entry["segmentation"]) * rng.choice([1, 1, 0.5])
            is_crowd = int(rng.random() < 0.2)
            annotations.append({**entry, "area": float(area), "iscrowd": is_crowd})
        for _ in range(rng.integers(0, num_results + 1)):
            corners, category_id = draw_corners(rng), int(rng.integers(1, num_classes + 1))
            if objects and rng.random() < 0.8:
                number = rng.integers(len(objects))
                corners = move(rng, objects[number], rng.integers(0, 8))
                category_id = int(classes[number]) if rng.random() < 0.9 else category_id
            entry = entry_of(draw_mask(rng, corners), image_id, category_id)
            results.append({**entry, "score": float(rng.choice([0.1, 0.25, 0.5, rng.random()]))})
    ground_truth = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in image_ids],
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": f"class {c}"} for c in range(num_classes)],
    }
    return ground_truth, results


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "boundary"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_images=st.integers(1, 4),
    num_classes=st.integers(1, 3),
    num_results=st.sampled_from([0, 3, 12, 25]),
    has_text_ids=st.booleans(),
)
def test_against_pycocotools(iou_type, seed, num_images, num_classes, num_results, has_text_ids):
    case = draw_case(seed, num_images, num_classes, num_results, has_text_ids)
    assert_equal_to_official(coco_ap(*case, iou_type), evaluate(*case, iou_type))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_more_results_than_count(iou_type):
    """Of an image and class 100, and those of equal scores in their order."""
    ground_truth, results = draw_case(24, 2, 1, 300, False)
    counts = collections.Counter(result["image_id"] for result in results)
    assert max(counts.values()) > 150
    figures = coco_ap(ground_truth, results, iou_type)
    assert_equal_to_official(figures, evaluate(ground_truth, results, iou_type))
    assert 0 < figures["AR1"] < figures["AR10"] < figures["AR100"]


def test_of_equal_ious_the_last_is_taken():
    """The first box lies amid two cats alike, the second on the last cat, which is gone then."""
    boxes = [[0, 0, 20, 20], [4, 0, 20, 20]]
    cats = [
        {"image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0} for box in boxes
    ]
    ground_truth = {
        "images": [{"id": 1, "height": 20, "width": 30}],
        "annotations": cats,
        "categories": [{"id": 1, "name": "cat"}],
    }
    found = [([2, 0, 20, 20], 0.9), (boxes[1], 0.8)]
    results = [{"image_id": 1, "category_id": 1, "bbox": b, "score": score} for b, score in found]
    figures = coco_ap(ground_truth, results, "bbox")
    assert_equal_to_official(figures, evaluate(ground_truth, results, "bbox"))
    # IoU 18/22 = .82 and 16/24 = .67: both are right up to .65, one up to .80 or above.
    assert figures["AR100"] == pytest.approx((4 * 1 + 6 * 0.5) / 10)
