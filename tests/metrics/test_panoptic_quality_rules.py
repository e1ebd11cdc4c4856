"""Panoptic quality against slow references: by its definition, and by panopticapi's rules."""

import json

import numpy as np
import panopticapi_rules
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png, write_panoptic_png
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality

CAT, DOG, SKY = 17, 18, 92
TABLE = CategoryTable(
    (Category(CAT, "cat", True), Category(DOG, "dog", True), Category(SKY, "sky", False))
)


def segment(segment_id, category_id, iscrowd=0):
    return {"id": segment_id, "category_id": category_id, "iscrowd": iscrowd}


def counts(result, name):
    return tuple(result["per_class"][name][key] for key in ("tp", "fp", "fn"))


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


def rules_of(images, category_ids):
    """Counts of panopticapi, by category."""
    return panopticapi_rules.add_counts(
        panopticapi_rules.image_counts(to_rgb(gt_ids), gt, to_rgb(pred_ids), pred, category_ids)
        for gt_ids, gt, pred_ids, pred in images
    )


def to_rgb(ids):
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def assert_equals_rules(result, totals, table):
    names = table.unique_names
    for category_id, (iou_sum, *expected) in totals.items():
        assert list(counts(result, names[category_id])) == expected
        sq = result["per_class"][names[category_id]]["SQ"]
        assert sq * max(expected[0], 1) == pytest.approx(iou_sum, abs=1e-9)
    groups = {
        "All": table.categories,
        "Things": table.things,
        "Stuff": table.stuff,
    }
    for name, categories in groups.items():
        figures = [result[name][key] for key in ("PQ", "SQ", "RQ", "n")]
        ids = [category.id for category in categories]
        if any(sum(totals.get(category_id, [0])) for category_id in ids):
            expected = panopticapi_rules.averages(totals, ids)
            assert figures == pytest.approx(expected, rel=1e-9, abs=1e-9)
        else:
            assert figures == [0, 0, 0, 0]


@st.composite
def odd_images(draw):
    """A panoptic image whose ground truth's JSON is wrong in areas and ids."""
    gt_ids, gt, pred_ids, pred = draw(panoptic_images())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for s in gt:
        # 100 and more pixels for an image of 42: the union stays positive.
        area = int((gt_ids == s["id"]).sum())
        s["area"] = int(rng.choice([area, area + 2, 100, 42]))
    if draw(st.booleans()):
        gt = gt[1:]
    if draw(st.booleans()):
        is_crowd = int(rng.random() < 0.5)
        gt.insert(0, {**segment(77, int(rng.choice([CAT, SKY])), is_crowd), "area": 5})
    return gt_ids, gt, pred_ids, pred


@settings(max_examples=150, deadline=None)
@given(st.lists(odd_images(), min_size=1, max_size=3))
def test_equals_the_rules_of_panopticapi(images):
    metric = PanopticQuality(TABLE, strict=False)
    for image in images:
        metric.update(*image)
    assert_equals_rules(metric.result(), rules_of(images, {CAT, DOG, SKY}), TABLE)


def perturbed(ids, segments, category_ids, rng):
    """A prediction that the ground truth becomes by what predictors get wrong."""
    pred_ids, pred = ids.copy(), []
    for s in segments:
        kind = rng.choice(["kept", "dropped", "split", "relabelled", "dilated"])
        mask = ids == s["id"]
        category_id = s["category_id"]
        if kind == "dropped":
            pred_ids[mask] = 0
        elif kind == "split":
            columns = np.flatnonzero(mask.any(axis=0))
            mask[:, : int(columns.mean())] = False
            pred_ids[mask] = 2**24 - s["id"]
        elif kind == "relabelled":
            category_id = int(rng.choice(category_ids))
        elif kind == "dilated":
            grown = mask | np.roll(mask, 4, axis=0) | np.roll(mask, -3, axis=1)
            pred_ids[grown] = s["id"]
        pred += [segment(s["id"], category_id), segment(2**24 - s["id"], category_id)]
    found = set(np.unique(pred_ids).tolist())
    return pred_ids, [s for s in pred if s["id"] in found]


@pytest.mark.parametrize(
    ("json_name", "folder"),
    [
        ("camvid/panoptic_val.json", "camvid/panoptic_val"),
        ("coco_panoptic_2/panoptic.json", "coco_panoptic_2/panoptic"),
        ("cocostuff_13/panoptic.json", "cocostuff_13/panoptic"),
    ],
)
def test_real_ground_truth_against_perturbed_copies(samples, json_name, folder):
    tree = json.loads((samples / json_name).read_text())
    table = CategoryTable.from_coco(tree["categories"])
    category_ids = [category.id for category in table.categories]
    rng = np.random.default_rng(0)
    loose, strict, images = PanopticQuality(table, strict=False), PanopticQuality(table), []
    for annotation in tree["annotations"][:13]:
        ids = read_panoptic_png(samples / folder / annotation["file_name"])
        segments = annotation["segments_info"]
        images.append((ids, segments, *perturbed(ids, segments, category_ids, rng)))
        assert loose.update(*images[-1]) == strict.update(*images[-1])
    totals = rules_of(images, set(category_ids))
    for metric in (loose, strict):  # here, areas are right and no two crowds are of one category
        assert_equals_rules(metric.result(), totals, table)
    result = strict.result()
    assert 0.2 < result["All"]["PQ"] < 0.9
    assert result["confusions"]
    assert loose.num_mismatched == 0


def test_the_rules_are_those_of_panopticapi(samples, tmp_path):
    """Runs where panopticapi itself is installed, for example by `pip install panopticapi-lite`."""
    evaluation = pytest.importorskip("panopticapi.evaluation")
    tree = json.loads((samples / "coco_panoptic_2" / "panoptic.json").read_text())
    category_ids = [category["id"] for category in tree["categories"]]
    rng = np.random.default_rng(0)
    images, pairs = [], []
    for gt in tree["annotations"]:
        ids = read_panoptic_png(samples / "coco_panoptic_2" / "panoptic" / gt["file_name"])
        for s in gt["segments_info"][::4]:
            s["area"] = int(1.3 * s["area"])
        gt["segments_info"][1]["iscrowd"] = 1
        del gt["segments_info"][2]
        pred_ids, pred = perturbed(ids, gt["segments_info"], category_ids, rng)
        unlisted = set(np.unique(pred_ids).tolist()) - {0, *(s["id"] for s in pred)}
        pred_ids[np.isin(pred_ids, list(unlisted))] = 0
        images.append((ids, gt["segments_info"], pred_ids, pred))
        write_panoptic_png(pred_ids, tmp_path / gt["file_name"])
        pairs.append((gt, {**gt, "segments_info": pred}))
    stat = evaluation.pq_compute_single_core(
        0, pairs, samples / "coco_panoptic_2" / "panoptic", tmp_path, dict.fromkeys(category_ids)
    )
    totals = rules_of(images, set(category_ids))
    official = {c: [v.iou, v.tp, v.fp, v.fn] for c, v in stat.pq_per_cat.items()}
    assert official == {c: pytest.approx(values) for c, values in totals.items()}
