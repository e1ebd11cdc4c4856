"""Panoptic quality: published figures, hand-worked cases and a slow reference."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.panoptic_quality import PanopticQuality

CAT, DOG, SKY = 17, 18, 92
TABLE = CategoryTable(
    (Category(CAT, "cat", True), Category(DOG, "dog", True), Category(SKY, "sky", False))
)


def segment(segment_id, category_id, iscrowd=0):
    return {"id": segment_id, "category_id": category_id, "iscrowd": iscrowd}


def read_ids(path):
    return np.asarray(Image.open(path)).astype(np.int64) @ [1, 256, 65536]


def quality_of(gt_ids, gt_segments, pred_ids, pred_segments, table=TABLE):
    metric = PanopticQuality(table)
    metric.update(np.array(gt_ids), gt_segments, np.array(pred_ids), pred_segments, image="a.png")
    return metric.result()


def counts(result, name):
    return tuple(result["per_class"][name][key] for key in ("tp", "fp", "fn"))


def test_published_figures(samples):
    folder = samples / "metric_fixtures" / "pq_single"
    gt = json.loads((folder / "gt.json").read_text())
    pred = json.loads((folder / "pred.json").read_text())
    result = quality_of(
        read_ids(folder / "gt" / "team.png"),
        gt["annotations"][0]["segments_info"],
        read_ids(folder / "pred" / "team.png"),
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
        ids = read_ids(folder / "panoptic" / annotation["file_name"])
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


def test_json_areas_are_not_read():
    wrong = {**segment(1, CAT), "area": 1}
    result = quality_of([[1, 1, 1]], [wrong], [[2, 2, 3]], [segment(2, CAT), segment(3, CAT)])
    assert result["per_class"]["cat"]["SQ"] == pytest.approx(2 / 3)


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
        ([[0, 1, 1]], [segment(0, CAT), segment(1, DOG)], "unique and above 0"),
    ],
)
def test_errors(pred_ids, pred_segments, message):
    with pytest.raises(DataError, match=message):
        quality_of([[1, 1, 1]], [segment(1, CAT)], pred_ids, pred_segments)
    if len(pred_ids[0]) == 3:
        with pytest.raises(DataError, match=message.replace("prediction:", "ground truth:")):
            quality_of(pred_ids, pred_segments, [[1, 1, 1]], [segment(1, CAT)])


def test_merge_needs_the_same_categories():
    with pytest.raises(ValueError, match="same categories"):
        PanopticQuality(TABLE).merge(PanopticQuality(CategoryTable(TABLE.categories[:1])))


@st.composite
def panoptic_images(draw):
    """A ground truth and a noisy prediction of it on 6 x 7 pixels, with void, crowds and stuff."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    ids = np.array([0, 3, 256, 70000, 2**24 - 1])
    gt_ids = np.repeat(rng.choice(ids, (6, 4)), 2, axis=1)[:, :7]
    is_noise = rng.random(gt_ids.shape) < draw(st.sampled_from([0.0, 0.1, 0.4]))
    pred_ids = np.where(is_noise, rng.choice(ids, gt_ids.shape), gt_ids)
    crowd_share = draw(st.sampled_from([0.0, 0.5]))
    category_of = {i: int(rng.choice([CAT, DOG, SKY])) for i in ids.tolist()}
    gt = [
        segment(i, category_of[i], int(rng.random() < crowd_share))
        for i in np.unique(gt_ids).tolist()
        if i
    ]
    wrong = draw(st.sampled_from([0.0, 0.3]))
    pred = [
        segment(i, int(rng.choice([CAT, DOG])) if rng.random() < wrong else category_of[i])
        for i in np.unique(pred_ids).tolist()
        if i
    ]
    rng.shuffle(gt)
    return gt_ids, gt, pred_ids, pred


def slow_counts(gt_ids, gt_segments, pred_ids, pred_segments, category_id):
    """Sum of IoU, tp, fp, fn of one category, from sets of pixels, straight from the rules."""

    def pixels(ids, segment_id):
        return set(np.flatnonzero(ids.ravel() == segment_id).tolist())

    void = pixels(gt_ids, 0)
    gt = [s for s in gt_segments if s["category_id"] == category_id]
    excused = void.union(*(pixels(gt_ids, s["id"]) for s in gt if s["iscrowd"]))
    truths = [pixels(gt_ids, s["id"]) for s in gt if not s["iscrowd"]]
    ious, false_positives = [], 0
    for s in pred_segments:
        if s["category_id"] != category_id:
            continue
        predicted = pixels(pred_ids, s["id"])
        best = max((len(predicted & t) / len((predicted - void) | t) for t in truths), default=0)
        if best > 0.5:
            ious.append(best)
        elif 2 * len(predicted & excused) <= len(predicted):
            false_positives += 1
    return sum(ious), len(ious), false_positives, len(truths) - len(ious)


@settings(max_examples=150, deadline=None)
@given(st.lists(panoptic_images(), min_size=1, max_size=3))
def test_equals_a_slow_reference(images):
    metrics = [PanopticQuality(TABLE) for _ in images]
    for metric, image in zip(metrics, images, strict=True):
        metric.update(*image)
    for metric in metrics[1:]:
        metrics[0].merge(metric)
    result = metrics[0].result()
    qualities = []
    for category in TABLE.categories:
        totals = np.sum([slow_counts(*image, category.id) for image in images], axis=0)
        iou_sum, tp, fp, fn = totals
        assert counts(result, category.name) == (tp, fp, fn)
        if tp + fp + fn:
            qualities.append(iou_sum / (tp + fp / 2 + fn / 2))
            assert result["per_class"][category.name]["PQ"] == pytest.approx(qualities[-1])
    assert result["All"]["n"] == len(qualities)
    assert result["All"]["PQ"] == pytest.approx(np.mean(qualities) if qualities else 0)
