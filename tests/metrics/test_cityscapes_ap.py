"""Cityscapes AP: the official script on random scenes, and cases by hand."""

import argparse
import json
import math
import warnings

import numpy as np
import pytest
from cityscapes_scene import file_pairs, official, write_scenes  # noqa: F401
from PIL import Image

from tf_panoptic_fpn.commands import cityscapes_ap as command
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.metrics.cityscapes_ap import CityscapesAP

CAR, CARAVAN, ROAD = 26, 29, 7


def run_command(folder, output=None):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = ["--gt-dir", str(folder / "gt"), "--pred-dir", str(folder / "found")]
    command.run(parser.parse_args(options + (["--json", str(output)] if output else [])))
    return json.loads(output.read_text()) if output else None


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_the_official_script(tmp_path, official, monkeypatch, seed):  # noqa: F811
    script = official("evalInstanceLevelSemanticLabeling")
    write_scenes(tmp_path, seed, num_images=3)
    monkeypatch.setattr(script.args, "gtInstancesFile", str(tmp_path / "instances.json"))
    monkeypatch.setattr(script.args, "predictionPath", str(tmp_path / "found"))
    with warnings.catch_warnings(action="ignore"):  # its means of classes that do not occur
        expected = script.evaluateImgLists(
            *file_pairs(tmp_path, "gt/*/*_instanceIds.png", "found/*.txt"), script.args
        )["averages"]
    result = run_command(tmp_path, tmp_path / "ap.json")
    assert result["AP"] == expected["allAp"] > 0
    assert result["AP50"] == expected["allAp50%"]
    for name, scores in result["per_class"].items():
        for key, official_key in (("AP", "ap"), ("AP50", "ap50%")):
            value = math.nan if scores[key] is None else scores[key]
            np.testing.assert_equal(value, expected["classes"][name][official_key])


def rectangle(left, right, height=10):
    mask = np.zeros((20, 60), bool)
    mask[:height, left:right] = True
    return mask


def ap50_of_cars(regions, predictions):
    """`regions`: (instance id, mask); the rest is road. `predictions`: (mask, score) of cars."""
    gt = np.full((20, 60), ROAD)
    for instance_id, mask in regions:
        gt[mask] = instance_id
    metric = CityscapesAP()
    metric.update(gt, [(mask, CAR, score) for mask, score in predictions])
    return metric.result()["per_class"]["car"]["AP50"]


FIRST, SECOND = (26001, rectangle(0, 20)), (26002, rectangle(30, 50))
SMALL, GROUP = (26003, rectangle(51, 60)), (CAR, rectangle(30, 50))


@pytest.mark.parametrize(
    ("regions", "predictions", "expected"),
    [
        ([FIRST], [(rectangle(0, 20), 0.9)], 1.0),
        ([FIRST], [], 0.0),
        ([FIRST], [(rectangle(0, 10), 0.9)], 0.0),  # an IoU of exactly .5 is too little
        # Recall 1/2 at precision 1: the first step counts half, from (1 + 1) / 2 at recall 1/2.
        ([FIRST, SECOND], [(rectangle(0, 20), 0.9)], 0.25 + 0.25),
        # Points (recall, precision) by score: (1, 2/3), (1/2, 1/2), (0, 0), (0, 1); the width of
        # each is half the distance of its neighbours.
        (
            [FIRST, SECOND],
            [(rectangle(51, 60), 0.9), (rectangle(0, 20), 0.8), (rectangle(30, 50), 0.7)],
            2 / 3 / 4 + 1 / 2 / 2 + 0 / 4,
        ),
        # Found twice: the worse one is wrong, and comes at recall 1.
        ([FIRST], [(rectangle(0, 20), 0.9), (rectangle(0, 19), 0.8)], 0 / 2 + 1 / 2 + 1 / 2),
        ([FIRST, SMALL], [(rectangle(0, 20), 0.9)], 1.0),  # a small one is not missed
        ([FIRST, SMALL], [(rectangle(0, 20), 0.5), (rectangle(51, 60), 0.9)], 1.0),
        ([FIRST, GROUP], [(rectangle(0, 20), 0.5), (rectangle(30, 38), 0.9)], 1.0),
        ([FIRST, (0, rectangle(30, 40))], [(rectangle(0, 20), 0.5), (rectangle(30, 49), 0.9)], 1.0),
        # Half on void is not more than the threshold: wrong, at (0, 0) before (1, 1/2).
        (
            [FIRST, (0, rectangle(30, 40))],
            [(rectangle(0, 20), 0.5), (rectangle(30, 50), 0.9)],
            0.25,
        ),
        ([FIRST, GROUP], [(rectangle(30, 50), 0.9)], 0.0),  # the official script fails
        ([GROUP], [(rectangle(30, 50), 0.9)], None),
    ],
)
def test_by_hand(regions, predictions, expected):
    assert ap50_of_cars(regions, predictions) == pytest.approx(expected)


def test_what_is_not_scored():
    gt = np.where(rectangle(0, 20), CARAVAN * 1000 + 1, ROAD)
    metric = CityscapesAP()
    metric.update(gt, [(rectangle(0, 20), CARAVAN, 0.9), (rectangle(0, 20), ROAD, 0.9)])
    result = metric.result()
    assert result["AP"] is result["AP50"] is None
    assert list(result["per_class"]) == [
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ]
    assert CityscapesAP().result() == result


def test_merge_equals_one_stream():
    whole, first, second = CityscapesAP(), CityscapesAP(), CityscapesAP()
    gt = np.where(rectangle(0, 20), 26001, ROAD)
    for part, left, score in ((first, 0, 0.5), (second, 3, 0.9), (second, 12, 0.7)):
        for metric in (whole, part):
            metric.update(gt, [(rectangle(left, left + 20), CAR, score)])
    assert first.result() != whole.result()
    first.merge(second)
    assert first.result() == whole.result()
    assert 0 < whole.result()["AP"] < whole.result()["AP50"] < 1


def test_errors_of_instances():
    gt, metric = np.where(rectangle(0, 20), 26001, ROAD), CityscapesAP()
    with pytest.raises(DataError, match=r"a\.txt: instance 1: mask and ground truth must have one"):
        metric.update(gt, [(rectangle(0, 9), CAR, 0.5), (np.ones((3, 4)), CAR, 0.5)], "a.txt")
    with pytest.raises(DataError, match=r"a\.txt: instance 0: unknown label id\. Received: 34"):
        metric.update(gt, [(rectangle(0, 9), 34, 0.5)], "a.txt")
    with pytest.raises(DataError, match="must be finite"):
        metric.update(gt, [(rectangle(0, 9), CAR, math.nan)], "a.txt")
    with pytest.raises(DataError, match=r"instance ids of unknown labels\. Received: \[34001\]"):
        metric.update(gt + 8000, [], "a.txt")
    assert metric.result()["AP"] is None  # no part of a refused image counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("masks/{stem}_0.png 26\n", r"line 1: must be `mask label_id score`"),
        ("\nmasks/{stem}_0.png 26 high\n", r"line 2: needs an integer and a finite number"),
        ("masks/{stem}_0.png 26.5 1\n", r"line 1: needs an integer"),
        ("../gt/ulm/{stem}_gtFine_labelIds.png 26 1\n", r"line 1: the mask must be below"),
        ("masks/{stem}_0.png 26 1\n" * 2, r"line 2: the mask .* is listed twice"),
        ("masks/none.png 26 1\n", r"none\.png: the map cannot be decoded"),
        ("cut.png 26 1\n", r"cut\.png: the map cannot be decoded"),
        (None, r"found: holds no file \*\.txt"),
    ],
)
def test_errors_of_files(tmp_path, text, message):
    write_scenes(tmp_path, 0, num_images=1)
    stem = "ulm_000000_000019"
    path = tmp_path / "found" / f"{stem}_pred.txt"
    whole = (tmp_path / "found" / "masks" / f"{stem}_0.png").read_bytes()
    (tmp_path / "found" / "cut.png").write_bytes(whole[:60])
    if text is None:
        path.unlink()
    else:
        path.write_text(text.format(stem=stem))
    with pytest.raises(DataError, match=message):
        run_command(tmp_path)


def test_a_16_bit_mask_is_what_is_not_0(tmp_path):
    write_scenes(tmp_path, 2, num_images=1)
    expected = run_command(tmp_path, tmp_path / "a.json")
    for path in (tmp_path / "found" / "masks").iterdir():
        mask = np.asarray(Image.open(path)) != 0
        Image.fromarray(mask.astype(np.uint16) * 256).save(path)
    assert run_command(tmp_path, tmp_path / "b.json") == expected
