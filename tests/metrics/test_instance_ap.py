"""Box and mask AP: published figures, hand-worked cases, and masks against `ops`."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.metrics.coco_ap import METRICS, coco_ap
from tf_panoptic_fpn.metrics.instance_ap import InstanceAP, instance_results, paste_mask
from tf_panoptic_fpn.ops.masks import paste_masks

CAT, SKY = 17, 92
TABLE = CategoryTable((Category(CAT, "cat", True), Category(SKY, "sky", False)))
PUBLISHED = dict(
    zip(
        METRICS,
        (
            0.3195452758576433,
            0.5622883972521636,
            0.29892653412086784,
            0.3873740315997838,
            0.31018272403369485,
            0.3269339071005138,
            0.2682297225711534,
            0.41544868114906375,
            0.4168394992198818,
        ),
        strict=True,
    )
)


@pytest.fixture(scope="module")
def val2014(samples):
    folder = samples / "metric_fixtures"
    return (
        json.loads((folder / "instances_val2014_100.json").read_text()),
        json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text()),
    )


def headline(result):
    return {name: result[name] for name in METRICS}


def test_published_figures(val2014):
    ground_truth, results = val2014
    before = copy.deepcopy(val2014)
    result = coco_ap(ground_truth, results, "segm")
    assert headline(result) == pytest.approx(PUBLISHED, rel=1e-12)
    assert (ground_truth, results) == before


def test_boxes_in_the_results_leave_the_mask_figures(val2014):
    """Sizes of masks must come from the mask: the small, medium and large figures show it."""
    ground_truth, results = val2014
    both = [{**r, "bbox": mask_api.toBbox(r["segmentation"]).tolist()} for r in results]
    assert headline(coco_ap(ground_truth, both, "segm")) == pytest.approx(PUBLISHED, rel=1e-12)
    box_ap = coco_ap(ground_truth, both, "bbox")
    assert 0 < box_ap["AP"] < 1
    assert box_ap["AP"] != pytest.approx(PUBLISHED["AP"])


def tiny_ground_truth(**annotation):
    return {
        "images": [{"id": 1, "height": 20, "width": 20}],
        "categories": [{"id": CAT, "name": "cat"}],
        "annotations": [
            {
                "id": 0,
                "image_id": 1,
                "category_id": CAT,
                "bbox": [2, 2, 10, 10],
                "area": 100,
                "iscrowd": 0,
                **annotation,
            }
        ],
    }


def tiny_result(**values):
    return {"image_id": 1, "category_id": CAT, "bbox": [2, 2, 10, 10], "score": 0.9, **values}


def test_annotation_number_zero_can_be_matched():
    box_ap = coco_ap(tiny_ground_truth(), [tiny_result()], "bbox")
    # Size 10 x 10 is small; pycocotools adds an epsilon to its denominators.
    expected = {**dict.fromkeys(METRICS, 1.0), "APm": None, "APl": None}
    assert headline(box_ap) == pytest.approx(expected)
    assert (box_ap["ARs"], box_ap["ARm"], box_ap["ARl"]) == (1, None, None)


def test_no_results_and_no_ground_truth():
    assert coco_ap(tiny_ground_truth(), [], "bbox")["AP"] == 0
    nothing = coco_ap({**tiny_ground_truth(), "annotations": []}, [], "bbox")
    assert headline(nothing) == dict.fromkeys(METRICS)
    assert nothing["per_class"] == {"cat": None}
    curves = [name for name, curve in nothing["precision_recall"].items() if curve is not None]
    assert curves == ["recall"]
    only_stuff = InstanceAP(CategoryTable(TABLE.categories[1:]))
    only_stuff.update(1, np.ones((4, 4), np.int32), [{"id": 1, "category_id": SKY}], [])
    assert headline(only_stuff.result()["mask_ap"]) == dict.fromkeys(METRICS)


def test_results_of_unknown_images_and_categories_are_an_error():
    with pytest.raises(DataError, match=r"image 2: the image of a result .* image_id 2"):
        coco_ap(tiny_ground_truth(), [tiny_result(image_id=2)], "bbox")
    with pytest.raises(DataError, match=r"image 1: the category of a result .* category_id 3"):
        coco_ap(tiny_ground_truth(), [tiny_result(category_id=3)], "bbox")


def rectangle_map():
    """Two cats of 6 x 8 pixels and sky; the second cat is beyond a gap."""
    ids = np.full((20, 30), 9, np.int32)
    ids[2:8, 3:11] = 4
    ids[12:18, 20:28] = 5
    return ids, np.array([[2, 3, 8, 11], [12, 20, 18, 28]], np.float32)


@pytest.mark.parametrize(
    ("found", "crowd", "expected"),
    [
        ([0, 1], [0, 0], 1.0),
        ([0], [0, 0], 51 / 101),  # precision 1 up to recall 0.5: 51 of the 101 recalls
        ([0, 1], [0, 1], 1.0),  # the detection on the crowd is not counted
        ([1], [0, 1], 0.0),
    ],
)
def test_against_a_panoptic_map(found, crowd, expected):
    ids, boxes = rectangle_map()
    segments = [
        {"id": 4, "category_id": CAT, "iscrowd": crowd[0]},
        {"id": 5, "category_id": CAT, "iscrowd": crowd[1]},
        {"id": 9, "category_id": SKY, "iscrowd": 0},
    ]
    boxes = boxes[found]
    n = len(boxes)
    results = instance_results(
        "a", boxes, np.full(n, 0.8, np.float32), np.full(n, CAT), np.ones((n, 28, 28)), ids.shape
    )
    metric = InstanceAP(TABLE)
    metric.update("a", ids, segments, results)
    result = metric.result()
    for figures in (result["box_ap"], result["mask_ap"]):
        assert [figures["AP"], figures["AP75"], figures["APs"]] == pytest.approx([expected] * 3)
        assert figures["APl"] is None


def test_an_image_without_things_or_detections():
    metric = InstanceAP(TABLE)
    metric.update(1, np.zeros((4, 5), np.int32), [], [])
    ids, boxes = rectangle_map()
    results = instance_results(2, boxes[:1], [0.5], [CAT], np.ones((1, 28, 28)), ids.shape)
    metric.update(2, np.where(ids == 4, 4, 0), [{"id": 4, "category_id": CAT}], results)
    assert metric.result()["mask_ap"]["AP"] == pytest.approx(1)


def test_overlapping_annotations():
    """A cat behind a cat is found whole, where a panoptic map would hold the rest of it."""
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 2:12, 3:23] = masks[1, 2:12, 13:29] = 1
    rles = [mask_api.encode(np.asfortranarray(mask)) for mask in masks]
    annotations = [
        {
            "category_id": CAT,
            "iscrowd": 0,
            "segmentation": rle,
            "area": float(mask.sum()),
            "bbox": mask_api.toBbox(rle).tolist(),
        }
        for rle, mask in zip(rles, masks, strict=True)
    ]
    results = [tiny_result(bbox=a["bbox"], segmentation=a["segmentation"]) for a in annotations]
    metric = InstanceAP(TABLE, iou_types=("boundary", "bbox"))
    metric.update_annotations(1, (20, 30), annotations, results)
    result = metric.result()
    assert list(result) == ["boundary_ap", "box_ap", "precision_recall"]
    assert result["boundary_ap"]["AP"] == result["box_ap"]["AP"] == pytest.approx(1)


def two_images():
    ids, boxes = rectangle_map()
    segments = [{"id": 4, "category_id": CAT}, {"id": 5, "category_id": CAT}]
    for image_id, found in (("a", [0, 1]), ("b", [1])):
        box = boxes[found] + (image_id == "b")
        probs = np.ones((len(box), 28, 28))
        results = instance_results(
            image_id, box, [0.9, 0.3][: len(box)], [CAT] * len(box), probs, ids.shape
        )
        yield image_id, np.where(ids == 9, 0, ids), segments, results


def test_merge_equals_one_stream():
    whole, first, second = InstanceAP(TABLE), InstanceAP(TABLE), InstanceAP(TABLE)
    for part, image in zip((second, first), two_images(), strict=True):
        whole.update(*image)
        part.update(*image)
    assert first.result() != whole.result()
    first.merge(pickle.loads(pickle.dumps(second)))  # a worker's, from its process
    assert first.result() == whole.result()
    with pytest.raises(DataError, match="image a occurs twice"):
        first.merge(second)
    with pytest.raises(ValueError, match="same categories"):
        first.merge(InstanceAP(CategoryTable(TABLE.categories[1:])))


def test_precision_over_recall_by_hand():
    """Found first a cat of IoU 1, then one moved by a pixel diagonally, of IoU 35/61, last none."""
    metric = InstanceAP(TABLE)
    for image in two_images():
        metric.update(*image)
    # By score: .9 right, .9 moved, .3 right, of 4 cats.
    curves = metric.result()["precision_recall"]
    assert curves["recall"] == pytest.approx([i / 100 for i in range(101)])
    assert curves["AP50"] == pytest.approx([1] * 76 + [0] * 25)
    assert curves["AP75"] == pytest.approx([1] * 26 + [2 / 3] * 25 + [0] * 50)
    assert curves["AP60"] == curves["AP95"] == curves["AP75"]
    mask_ap = metric.result()["mask_ap"]
    assert mask_ap["AP50"] == pytest.approx(76 / 101)
    assert mask_ap["AP"] == pytest.approx(np.mean(curves["AP"])) == mask_ap["per_class"]["cat"]


def test_a_name_that_things_and_stuff_share():
    table = CategoryTable((Category(1, "water", True), Category(2, "water", False)))
    metric = InstanceAP(table)
    metric.update(1, np.ones((4, 4), np.int32), [{"id": 1, "category_id": 1}], [])
    assert metric.result()["mask_ap"]["per_class"] == {"water 1": 0}


def test_an_image_twice_and_results_of_another():
    metric = InstanceAP(TABLE)
    first, second = two_images()
    metric.update(*first)
    with pytest.raises(DataError, match="image a occurs twice"):
        metric.update(*first)
    with pytest.raises(DataError, match=r"must be of image b\. Received: {'a'}"):
        metric.update(*second[:3], first[3])
    with pytest.raises(DataError, match=r"image c: annotations must be of things\. .* \{92\}"):
        metric.update_annotations("c", (4, 4), [{"category_id": SKY}], [])
    with pytest.raises(DataError, match=r"image b: masks must have .* \(20, 31\).*\(20, 30\)"):
        metric.update_annotations("b", (20, 31), [], second[3])


def test_results_survive_json():
    boxes = np.array([[1, 2, 5, 8.5], [0, 0, 0, 0]], np.float32)
    probs = np.stack([np.ones((28, 28)), np.zeros((28, 28))]).astype(np.float32)
    results = instance_results(
        7, boxes, np.float32([0.75, 0.5]), np.int64([CAT, CAT]), probs, (9, 10)
    )
    assert json.loads(json.dumps(results)) == results
    first, second = results
    assert first["bbox"] == [2, 1, 6.5, 4]
    assert (first["image_id"], first["category_id"], first["score"]) == (7, CAT, 0.75)
    mask = mask_api.decode(first["segmentation"])
    # Pixel 8 of a row has its centre on the edge of the box, where a full mask is 0.5: it is kept.
    expected = np.zeros((9, 10), np.uint8)
    expected[1:5, 2:9] = 1
    np.testing.assert_array_equal(mask, expected)
    assert mask_api.area(second["segmentation"]) == 0


coordinates = st.integers(-6 * 16, 46 * 16).map(lambda sixteenths: sixteenths / 16)


@settings(max_examples=40, deadline=None)
@given(
    box=st.tuples(coordinates, coordinates, coordinates, coordinates),
    size=st.sampled_from([(40, 33), (1, 40), (17, 5)]),
    seed=st.integers(0, 1000),
)
def test_paste_mask_equals_paste_masks(box, size, seed):
    y1, x1, y2, x2 = box
    box = np.array([min(y1, y2), min(x1, x2), max(y1, y2), max(x1, x2)], np.float32)
    probs = np.random.default_rng(seed).random((28, 28), np.float32)
    pasted = np.asarray(paste_masks(probs[None], box[None], size))[0]
    mask = paste_mask(probs, box, size)
    assert mask.dtype == np.uint8
    # The sums are taken in another order: within 1e-4 of the threshold either side is right.
    is_clear = np.abs(pasted - 0.5) > 1e-4
    np.testing.assert_array_equal(mask[is_clear], (pasted >= 0.5)[is_clear])
