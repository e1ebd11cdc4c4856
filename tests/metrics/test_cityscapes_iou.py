"""Cityscapes IoU and iIoU: the official script on random scenes, and cases by hand."""

import argparse
import json
import math

import numpy as np
import pytest
from cityscapes_scene import file_pairs, official, write_scenes  # noqa: F401
from PIL import Image

from tf_panoptic_fpn.commands import cityscapes_iou as command
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes_labels import LABELS
from tf_panoptic_fpn.metrics.cityscapes_iou import AVERAGE_SIZES, CityscapesIoU

SKY, CAR, PERSON, ROAD = (
    [label.name for label in LABELS].index(n) for n in ("sky", "car", "person", "road")
)


def run_command(folder, output=None):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = ["--gt-dir", str(folder / "gt"), "--pred-dir", str(folder / "pred")]
    command.run(parser.parse_args(options + (["--json", str(output)] if output else [])))
    return json.loads(output.read_text()) if output else None


def test_labels_and_sizes_are_the_official_ones():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    assert [
        (label.name, label.category, label.has_instances, label.is_ignored) for label in LABELS
    ] == [(x.name, x.category, x.hasInstances, x.ignoreInEval) for x in labels if x.id >= 0]


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_official_script(tmp_path, official, seed, capsys):  # noqa: F811
    script = official("evalPixelLevelSemanticLabeling")
    for name, size in AVERAGE_SIZES.items():
        assert script.args.avgClassSize[name] == size
    write_scenes(tmp_path, seed)
    expected = script.evaluateImgLists(
        *file_pairs(tmp_path, "gt/*/*_labelIds.png", "pred/*"), script.args
    )
    result = run_command(tmp_path, tmp_path / "out" / "iou.json")

    def number(value):
        return math.nan if value is None else value

    for group, key in (
        ("class", "IoU"),
        ("category", "IoU"),
        ("class", "iIoU"),
        ("category", "iIoU"),
    ):
        kind = "Scores" if key == "IoU" else "InstScores"
        for name, scores in result[f"per_{group}"].items():
            np.testing.assert_equal(number(scores[key]), expected[f"{group}{kind}"][name])
        plural = {"class": "classes", "category": "categories"}[group]
        mean = expected[f"averageScore{kind[:-6]}{plural.capitalize()}"]
        np.testing.assert_equal(number(result[plural][key]), mean)
    assert result["classes"]["IoU"] > 0
    assert "sidewalk" in capsys.readouterr().out


def test_by_hand():
    """Two cars of 2 and 6 pixels, 1 and 6 found; a pixel of road and one of void are called car."""
    gt = np.array([[26, 26, 26, 26, 26, 26, 26, 26, 7, 7, 0]])
    instances = np.array([[26001] * 2 + [26002] * 6 + [7, 7, 0]])
    pred = np.array([[26, 7, 26, 26, 26, 26, 26, 26, 26, 7, 26]])
    metric = CityscapesIoU()
    metric.update(gt, instances, pred)
    result = metric.result()
    size = AVERAGE_SIZES["car"]
    assert result["per_class"]["car"]["IoU"] == pytest.approx(7 / 9)
    assert result["per_class"]["car"]["iIoU"] == pytest.approx(1.5 * size / (2 * size + 1))
    assert result["per_class"]["road"] == {"IoU": pytest.approx(1 / 3), "iIoU": None}
    assert result["per_class"]["sky"] == {"IoU": None, "iIoU": None}
    assert result["per_category"]["flat"]["IoU"] == pytest.approx(1 / 3)
    assert result["per_category"]["vehicle"] == result["per_class"]["car"]
    assert result["classes"]["IoU"] == pytest.approx((7 / 9 + 1 / 3) / 2)


def test_a_car_found_as_a_caravan_is_a_vehicle_where_instances_count():
    metric = CityscapesIoU()
    metric.update(np.full((2, 3), 26), np.full((2, 3), 26), np.full((2, 3), 29))
    assert metric.result()["per_class"]["car"] == {"IoU": 0, "iIoU": None}
    metric.update(np.full((2, 3), 26), np.full((2, 3), 26001), np.full((2, 3), 29))
    result = metric.result()
    assert result["per_class"]["car"] == {"IoU": 0, "iIoU": 0}
    assert result["per_category"]["vehicle"] == {"IoU": 0, "iIoU": 1}


def test_merge_equals_one_stream_and_an_empty_one_is_nothing():
    rng = np.random.default_rng(3)
    whole, first, second = CityscapesIoU(), CityscapesIoU(), CityscapesIoU()
    assert whole.result()["classes"] == whole.result()["categories"] == {"IoU": None, "iIoU": None}
    for part in (first, second):
        gt, pred = rng.integers(20, 29, (2, 9, 8))
        instances = np.where(gt >= 24, gt * 1000 + 1, gt)
        for metric in (whole, part):
            metric.update(gt, instances, pred)
    assert first.result() != whole.result()
    first.merge(second)
    assert first.result()["classes"] == pytest.approx(whole.result()["classes"], rel=1e-12)
    assert first.result()["categories"] == pytest.approx(whole.result()["categories"], rel=1e-12)


def test_errors_of_maps():
    gt = np.full((2, 3), ROAD)
    metric = CityscapesIoU()
    with pytest.raises(DataError, match=r"a\.png: prediction and ground truth must have one size"):
        metric.update(gt, gt, gt[:1], "a.png")
    with pytest.raises(DataError, match=r"a\.png: instance map and ground truth must have one"):
        metric.update(gt, gt[:1], gt, "a.png")
    with pytest.raises(DataError, match=r"prediction: label ids .* \(not train ids\).* \[255\]"):
        metric.update(gt, gt, np.where(gt == 7, 255, 0), "a.png")
    with pytest.raises(DataError, match=r"ground truth: label ids .* \[-1\]"):
        metric.update(gt * 0 - 1, gt, gt, "a.png")
    with pytest.raises(DataError, match=r"that have instances\. Received: \[7001\]"):
        metric.update(gt, gt * 1000 + 1, gt, "a.png")
    assert metric.result()["classes"]["IoU"] is None  # no part of a refused image counts


def test_errors_of_files(tmp_path):
    with pytest.raises(DataError, match="gt: holds no file"):
        run_command(tmp_path)
    write_scenes(tmp_path, 0, num_images=2)
    missing = tmp_path / "pred" / "ulm_000001_000019_pred.png"
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(DataError, match=r"ulm_000001_000019\*\.png: .* missing \(1 of 2\)"):
        run_command(tmp_path)
    missing.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ulm_000001_000019_pred\.png: the map cannot be decoded"):
        run_command(tmp_path)
    Image.new("RGB", (90, 60)).save(missing)
    with pytest.raises(DataError, match=r"_pred\.png: a label map must be grey .* mode RGB"):
        run_command(tmp_path)
    missing.write_bytes(content)
    (tmp_path / "pred" / "again").mkdir()
    (tmp_path / "pred" / "again" / missing.name).write_bytes(content)
    with pytest.raises(DataError, match="has more than one prediction"):
        run_command(tmp_path)
    (tmp_path / "pred" / "again" / missing.name).unlink()
    (tmp_path / "gt" / "ulm" / "ulm_000001_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(DataError, match=r"000001_000019_gtFine_instanceIds\.png: .* cannot be"):
        run_command(tmp_path)


def test_palette_and_16_bit_maps_are_read_by_their_values(tmp_path):
    write_scenes(tmp_path, 1, num_images=1)
    expected = run_command(tmp_path, tmp_path / "a.json")
    path = tmp_path / "pred" / "ulm_000000_000019_pred.png"
    labels = np.asarray(Image.open(path))
    Image.fromarray(labels.astype(np.uint16)).save(path)
    assert run_command(tmp_path, tmp_path / "b.json") == expected
    palette = Image.fromarray(labels)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(path)
    assert Image.open(path).mode == "P"
    assert run_command(tmp_path, tmp_path / "c.json") == expected
