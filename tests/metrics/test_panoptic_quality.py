"""Panoptic quality: published figures and hand-worked cases."""

import json

import numpy as np
import pytest

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality

CAT, DOG, SKY = 17, 18, 92
TABLE = CategoryTable(
    (Category(CAT, "cat", True), Category(DOG, "dog", True), Category(SKY, "sky", False))
)


def segment(segment_id, category_id, iscrowd=0):
    return {"id": segment_id, "category_id": category_id, "iscrowd": iscrowd}


def quality_of(gt_ids, gt_segments, pred_ids, pred_segments, table=TABLE, strict=True):
    metric = PanopticQuality(table, strict)
    metric.update(np.array(gt_ids), gt_segments, np.array(pred_ids), pred_segments, image="a.png")
    return metric.result()


def counts(result, name):
    return tuple(result["per_class"][name][key] for key in ("tp", "fp", "fn"))


def test_published_figures(samples):
    folder = samples / "metric_fixtures" / "pq_single"
    gt = json.loads((folder / "gt.json").read_text())
    pred = json.loads((folder / "pred.json").read_text())
    result = quality_of(
        read_panoptic_png(folder / "gt" / "team.png"),
        gt["annotations"][0]["segments_info"],
        read_panoptic_png(folder / "pred" / "team.png"),
        pred["annotations"][0]["segments_info"],
        CategoryTable.from_coco(gt["categories"]),
    )
    # The published figures are float32: one part in 10 million.
    assert result["All"]["PQ"] == pytest.approx(0.62156284, rel=1e-7)
    assert result["All"]["SQ"] == pytest.approx(0.64664984, rel=1e-7)
    assert result["All"]["RQ"] == pytest.approx(0.9666667, rel=1e-7)
    assert result["All"]["n"] == 2
    assert result["Things"] == result["All"]
    assert result["Stuff"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 0}
    assert counts(result, "person") == (7, 0, 1)
    assert counts(result, "bear") == (1, 0, 0)


def test_real_ground_truth_against_itself(samples):
    """Crowds are predicted as plain segments here, and must neither match nor count as false."""
    folder = samples / "coco_panoptic_2"
    data = json.loads((folder / "panoptic.json").read_text())
    metric = PanopticQuality(CategoryTable.from_coco(data["categories"]))
    num_crowds = num_matches = 0
    for annotation in data["annotations"]:
        ids = read_panoptic_png(folder / "panoptic" / annotation["file_name"])
        segments = annotation["segments_info"]
        metric.update(ids, segments, ids, segments)
        num_crowds += sum(s["iscrowd"] for s in segments)
        num_matches += sum(not s["iscrowd"] for s in segments)
    result = metric.result()
    assert num_crowds > 0
    assert result["All"]["PQ"] == result["Things"]["RQ"] == result["Stuff"]["SQ"] == 1
    totals = [sum(c[key] for c in result["per_class"].values()) for key in ("tp", "fp", "fn")]
    assert totals == [num_matches, 0, 0]


def test_by_hand():
    """Cat: 4 of 4 + 5 - 4 pixels, IoU 4/5. Dog: found as cat. Sky: 2 of 3 pixels, IoU 2/3."""
    gt_ids = [[1, 1, 1, 1, 3, 3, 3, 2, 2, 2]]
    pred_ids = [[7, 7, 7, 7, 7, 9, 9, 8, 8, 8]]
    result = quality_of(
        gt_ids,
        [segment(1, CAT), segment(2, DOG), segment(3, SKY)],
        pred_ids,
        [segment(7, CAT), segment(8, CAT), segment(9, SKY)],
    )
    assert result["per_class"]["cat"] == {
        "PQ": pytest.approx(0.8 / 1.5),
        "SQ": pytest.approx(0.8),
        "RQ": pytest.approx(1 / 1.5),
        "tp": 1,
        "fp": 1,
        "fn": 0,
    }
    assert counts(result, "dog") == (0, 0, 1)
    assert counts(result, "sky") == (1, 0, 0)
    assert result["All"]["PQ"] == pytest.approx((0.8 / 1.5 + 0 + 2 / 3) / 3)
    assert result["Things"]["PQ"] == pytest.approx(0.8 / 1.5 / 2)
    assert result["Stuff"] == {
        "PQ": pytest.approx(2 / 3),
        "SQ": pytest.approx(2 / 3),
        "RQ": 1,
        "n": 1,
    }


def test_iou_of_one_half_is_no_match():
    result = quality_of([[1, 1, 0, 0]], [segment(1, CAT)], [[5, 0, 0, 0]], [segment(5, CAT)])
    assert counts(result, "cat") == (0, 1, 1)


def test_predicted_pixels_on_void_leave_the_union():
    result = quality_of([[1, 1, 0, 0, 0]], [segment(1, CAT)], [[5] * 5], [segment(5, CAT)])
    assert counts(result, "cat") == (1, 0, 0)
    assert result["per_class"]["cat"]["SQ"] == 1


@pytest.mark.parametrize(
    ("gt_ids", "false_positives"),
    [
        ([[0, 0, 0, 3]], 0),  # 3 of 4 pixels on void
        ([[0, 0, 3, 3]], 1),  # exactly half does not excuse
        ([[0, 4, 4, 3]], 0),  # void and a crowd of its category add up
        ([[3, 2, 2, 2]], 1),  # a crowd of another category
        ([[3, 4, 6, 6]], 0),  # two crowds of its category
    ],
)
def test_what_excuses_a_prediction(gt_ids, false_positives):
    listed = [segment(2, DOG, 1), segment(3, SKY), segment(4, CAT, 1), segment(6, CAT, 1)]
    gt_segments = [s for s in listed if s["id"] in gt_ids[0]]
    result = quality_of(gt_ids, gt_segments, [[5] * 4], [segment(5, CAT)])
    assert counts(result, "cat") == (0, false_positives, 0)
    assert counts(result, "dog") == (0, 0, 0)


def test_nothing_predicted_and_nothing_to_find():
    empty, full = [[0, 0, 0]], [[2, 2, 2]]
    nothing = {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 0}
    assert quality_of(empty, [], empty, [])["All"] == nothing
    assert quality_of(empty, [], full, [segment(2, CAT)])["All"] == nothing
    assert PanopticQuality(TABLE).result()["All"] == nothing
    assert counts(quality_of(full, [segment(2, CAT)], empty, []), "cat") == (0, 0, 1)


@pytest.mark.parametrize(
    ("strict", "area", "expected"),
    [
        (True, 1, (2 / 3, 1, 1, 0)),
        (False, None, (2 / 3, 1, 1, 0)),  # no area is listed
        (False, 1, (2 / 1 + 1 / 1, 2, 0, 0)),  # 2 + 1 - 2 - 0 and 1 + 1 - 1 - 0
        (False, 7, (0, 0, 2, 1)),
        (False, -2, (0, 0, 2, 1)),  # unions of -2 and -2
    ],
)
def test_listed_areas(strict, area, expected):
    gt = segment(1, CAT) if area is None else {**segment(1, CAT), "area": area}
    pred = [segment(2, CAT), segment(3, CAT)]
    result = quality_of([[1, 1, 1]], [gt], [[2, 2, 3]], pred, strict=strict)
    iou_sum, *expected_counts = expected
    assert counts(result, "cat") == tuple(expected_counts)
    assert result["per_class"]["cat"]["SQ"] == pytest.approx(iou_sum / max(expected_counts[0], 1))


def test_an_area_that_leaves_no_union_is_an_error():
    gt = [{**segment(1, CAT), "area": 0}]
    with pytest.raises(DataError, match=r"a.png: ground truth: .* impossible `area`.* \[1\]"):
        quality_of([[1, 1]], gt, [[1, 1]], [segment(1, CAT)], strict=False)


@pytest.mark.parametrize(("strict", "false_positives"), [(True, 0), (False, 1)])
def test_which_crowds_of_a_category_count(strict, false_positives):
    """The crowd listed last covers a third of the prediction; both together two thirds."""
    gt = [segment(9, CAT, 1), segment(4, CAT, 1), segment(5, DOG)]
    result = quality_of([[9, 4, 5]], gt, [[1, 1, 1]], [segment(1, CAT)], strict=strict)
    assert counts(result, "cat") == (0, false_positives, 0)
    assert counts(result, "dog") == (0, 0, 1)


def test_ids_that_differ_from_the_json_without_strict():
    """Pixels of an unlisted id are no void; a listed id without pixels is missed."""
    metric = PanopticQuality(TABLE, strict=False)
    gt = [segment(1, CAT), segment(2, DOG), segment(3, SKY, 1)]
    metric.update([[1, 1, 9, 9, 9]], gt, [[5, 5, 5, 6, 6]], [segment(5, CAT), segment(6, SKY)])
    result = metric.result()
    assert result["per_class"]["cat"]["SQ"] == pytest.approx(2 / 3)
    assert counts(result, "dog") == (0, 0, 1)
    assert counts(result, "sky") == (0, 1, 0)
    assert metric.num_mismatched == 1
    assert PanopticQuality(TABLE).num_mismatched == 0


@pytest.mark.parametrize("strict", [True, False])
def test_pq_of_the_image(strict):
    metric = PanopticQuality(TABLE, strict)
    cat, sky = segment(1, CAT), segment(2, SKY)
    assert metric.update([[1, 1, 2, 2]], [cat, sky], [[1, 2, 2, 2]], [cat, sky]) == pytest.approx(
        (0 + 2 / 3) / 2  # exactly half of the cat is not enough
    )
    assert metric.update([[0, 0]], [], [[0, 0]], []) is None
    assert metric.update([[1, 1]], [cat], [[1, 1]], [cat]) == 1


def test_splits():
    gt = [segment(1, CAT), segment(2, DOG), segment(3, SKY)]
    pred = [segment(1, CAT), segment(2, CAT), segment(3, SKY)]
    metric = PanopticQuality(TABLE)
    metric.update([[1, 1, 2, 3, 3, 3, 3]], gt, [[1, 1, 2, 2, 3, 3, 3]], pred)
    splits = {"pets": [CAT, DOG], "outdoors": [SKY, DOG], "none": []}
    result = metric.result(splits)["splits"]
    assert result["pets"] == pytest.approx(
        {"PQ": 1 / 1.5 / 2, "SQ": 0.5, "RQ": 1 / 1.5 / 2, "n": 2}
    )
    assert result["outdoors"] == pytest.approx({"PQ": 0.375, "SQ": 0.375, "RQ": 0.5, "n": 2})
    assert result["none"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 0}
    assert "splits" not in metric.result()
    with pytest.raises(DataError, match=r"'odd' has unknown category ids. Received: \[3\]"):
        metric.result({"odd": [CAT, 3]})


def test_by_size():
    """Segments of 1023, 1024, 9215 and 9216 pixels, and a false positive of 1024."""
    areas = [1023, 1024, 9215, 9216, 1024]
    pred_ids = np.repeat(np.arange(1, 6), areas)[None]
    gt_ids = np.where(pred_ids == 5, 6, pred_ids)
    gt_ids[0, np.flatnonzero(pred_ids == 1)[:23]] = 6  # IoU 1000 / 1023
    pred_ids[0, np.flatnonzero(pred_ids == 4)[:1]] = 0  # IoU 9215 / 9216
    gt = [*(segment(i, CAT) for i in range(1, 5)), segment(6, SKY)]
    pred = [segment(i, CAT) for i in range(1, 6)]
    by_size = quality_of(gt_ids, gt, pred_ids, pred)["by_size"]
    assert by_size["small"] == pytest.approx(
        {"PQ": 1000 / 1023, "SQ": 1000 / 1023, "RQ": 1, "n": 1}
    )
    # The cats of 1024 and 9215, the false positive, and the missed sky of 1047.
    assert by_size["medium"] == pytest.approx({"PQ": 0.4, "SQ": 0.5, "RQ": 0.4, "n": 2})
    assert by_size["large"] == pytest.approx(
        {"PQ": 9215 / 9216, "SQ": 9215 / 9216, "RQ": 1, "n": 1}
    )


def test_confusions():
    gt = [segment(1, CAT), segment(2, DOG), segment(3, SKY), segment(4, DOG, 1)]
    pred = [segment(1, DOG), segment(2, CAT), segment(3, SKY)]
    metric = PanopticQuality(TABLE)
    # The cat is taken for a dog; most of the dog too, and the rest of it for a cat; the sky is
    # found, so that neither it nor its prediction counts.
    gt_ids = [[1, 1, 1, 2, 2, 2, 3, 3, 3, 4]]
    metric.update(gt_ids, gt, [[1, 1, 1, 1, 1, 2, 3, 3, 3, 2]], pred)
    metric.update([[1, 1]], gt[:1], [[1, 1]], pred[:1])
    metric.update([[1, 1]], gt[:1], [[0, 0]], [])
    assert metric.result()["confusions"] == [
        {"gt": "cat", "pred": "dog", "count": 2},
        {"gt": "dog", "pred": "dog", "count": 1},
    ]
    other = PanopticQuality(TABLE)
    other.update([[2, 2]], gt[1:2], [[2, 2]], pred[1:2])
    metric.merge(other)
    assert metric.result()["confusions"][1] == {"gt": "dog", "pred": "cat", "count": 1}


def test_names_that_occur_twice_stay_apart():
    table = CategoryTable((Category(1, "water", True), Category(2, "water", False)))
    result = quality_of([[4, 4]], [segment(4, 2)], [[4, 4]], [segment(4, 2)], table)
    assert counts(result, "water 1") == (0, 0, 0)
    assert counts(result, "water 2") == (1, 0, 0)


@pytest.mark.parametrize(
    ("pred_ids", "pred_segments", "message"),
    [
        ([[1, 1]], [segment(1, CAT)], "a.png: prediction and ground truth must have one size"),
        ([[1, 1, 7]], [segment(1, CAT)], r"a.png: prediction: the map holds ids .* \[7\]"),
        ([[1, 1, 1]], [segment(1, CAT), segment(2, CAT)], r"listed segments have no pixel.* \[2\]"),
        ([[1, 1, 1]], [segment(1, 5)], "segment 1 has an unknown category. Received: 5"),
        ([[1, 1, 1]], [segment(1, CAT), segment(1, DOG)], "unique and above 0"),
        ([[0, 1, 1]], [segment(0, CAT), segment(1, DOG)], r"unique and above 0. Received: \[0\]"),
    ],
)
def test_errors(pred_ids, pred_segments, message):
    with pytest.raises(DataError, match=message):
        quality_of([[1, 1, 1]], [segment(1, CAT)], pred_ids, pred_segments)
    if len(pred_ids[0]) == 3:
        with pytest.raises(DataError, match=message.replace("prediction:", "ground truth:")):
            quality_of(pred_ids, pred_segments, [[1, 1, 1]], [segment(1, CAT)])


def test_long_lists_of_ids_are_cut():
    with pytest.raises(DataError, match=r"Received: \[1, 2, 3, 4, 5\] and 4 more$"):
        quality_of([range(1, 10)], [], [[0] * 9], [])


def test_merge_needs_the_same_categories():
    with pytest.raises(ValueError, match="same categories"):
        PanopticQuality(TABLE).merge(PanopticQuality(CategoryTable(TABLE.categories[:1])))
    with pytest.raises(ValueError, match="equally strict"):
        PanopticQuality(TABLE).merge(PanopticQuality(TABLE, strict=False))
