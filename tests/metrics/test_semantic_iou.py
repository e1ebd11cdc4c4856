"""Semantic IoU and accuracy: hand-worked cases, the definition, and the command on files."""

import argparse
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn.commands import semantic_iou as command
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.metrics.semantic_iou import SemanticIoU

NAMES = ["other", "sky", "road", "snow"]


def test_by_hand():
    """other 2 of 3 + 1, sky 1 of 3, road predicted only, snow absent; 255 left out."""
    metric = SemanticIoU(NAMES)
    metric.update(np.array([[0, 0, 1, 1, 1, 255]]), np.array([[0, 0, 1, 0, 2, 3]]))
    assert metric.result() == {
        "mIoU": pytest.approx((2 / 3 + 1 / 3) / 2),
        "fIoU": pytest.approx(2 / 3 * 2 / 5 + 1 / 3 * 3 / 5),
        "mean_accuracy": pytest.approx((2 / 2 + 1 / 3) / 2),
        "pixel_accuracy": pytest.approx(3 / 5),
        "per_class": {
            "other": pytest.approx(2 / 3),
            "sky": pytest.approx(1 / 3),
            "road": None,
            "snow": None,
        },
    }


def test_nothing_labelled():
    metric = SemanticIoU(NAMES)
    metric.update(np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.int32))
    means = dict.fromkeys(["mIoU", "fIoU", "mean_accuracy", "pixel_accuracy"])
    assert metric.result() == {**means, "per_class": dict.fromkeys(NAMES)}


def slow_reference(gt, pred, num_classes, ignored):
    """The definitions, one pixel at a time."""
    pixels = [(g, p) for g, p in zip(gt.ravel(), pred.ravel(), strict=True) if g != ignored]
    ious, shares, accuracies = [], [], []
    for c in range(num_classes):
        hits = sum(g == p == c for g, p in pixels)
        occurs = sum(g == c for g, _ in pixels)
        if occurs:
            ious.append(hits / sum(c in pair for pair in pixels))
            accuracies.append(hits / occurs)
            shares.append(occurs / len(pixels))
    return {
        "mIoU": sum(ious) / len(ious),
        "fIoU": sum(i * s for i, s in zip(ious, shares, strict=True)),
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "pixel_accuracy": sum(g == p for g, p in pixels) / len(pixels),
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(1, 6), ignored=st.sampled_from([255, 0]))
def test_against_the_definition(seed, num_classes, ignored):
    rng = np.random.default_rng(seed)
    gt, pred = rng.integers(0, num_classes, (2, 5, 7))
    gt[rng.random(gt.shape) < 0.2] = ignored
    gt[0, 0] = num_classes - 1 if num_classes > 1 else gt[0, 0]
    metric = SemanticIoU(list(map(str, range(num_classes))), ignored)
    metric.update(gt, pred)
    result = metric.result()
    del result["per_class"]
    if (gt == ignored).all():
        assert set(result.values()) == {None}
    else:
        assert result == pytest.approx(slow_reference(gt, pred, num_classes, ignored))


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


CATEGORIES = [{"id": 300, "name": "sky"}, {"id": 7, "name": "road"}, {"id": 9, "name": "snow"}]


def write_maps(folder, gt, pred, name="a.png", dtype=np.uint16):
    for key, ids in (("gt", gt), ("pred", pred)):
        path = folder / key / "town" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(ids, dtype)).save(path)


def run_command(folder, *options, categories=CATEGORIES):
    (folder / "categories.json").write_text(json.dumps(categories))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    paths = [f"--gt-dir={folder / 'gt'}", f"--pred-dir={folder / 'pred'}"]
    paths += [f"--categories={folder / 'categories.json'}", f"--json={folder / 'out.json'}"]
    command.run(parser.parse_args([*paths, *options]))
    return json.loads((folder / "out.json").read_text())


def test_command(tmp_path, capsys):
    """As by hand, in category ids that are neither in order nor below 256; 0 and 255 ignored."""
    write_maps(tmp_path, [[300, 300, 7, 7, 7, 255]], [[300, 300, 7, 300, 9, 9]])
    write_maps(tmp_path, [[0, 0]], [[1000, 9]], name="b.png")
    result = run_command(tmp_path, "--ignored", "0", "255", "--boundary")
    assert result["mIoU"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert result["per_class"] == {"sky": 2 / 3, "road": 1 / 3, "snow": None}
    # In an image one pixel high every pixel is on the boundary.
    assert result["boundary"]["per_class"] == result["per_class"]
    printed = capsys.readouterr().out
    assert "sky     66.67         66.67" in printed
    assert run_command(tmp_path, "--ignored", "0", "255", categories={"categories": CATEGORIES})


@pytest.mark.parametrize(
    ("gt", "pred", "message"),
    [
        (
            [[7, 7]],
            [[7, 8]],
            r"pred/town/a\.png: the map holds ids of no category\. Received: \[8\]",
        ),
        ([[7, 0]], [[7, 7]], r"gt/town/a\.png: the map holds ids of no category\. Received: \[0\]"),
        ([[7, 7]], [[7, 7, 7]], r"pred/town/a\.png: .* one size\. Received: \(1, 3\) and \(1, 2\)"),
    ],
)
def test_errors_of_maps(tmp_path, gt, pred, message):
    write_maps(tmp_path, gt, pred)
    with pytest.raises(DataError, match=message):
        run_command(tmp_path)


def test_errors_of_files(tmp_path):
    with pytest.raises(DataError, match="gt: holds no file"):
        run_command(tmp_path)
    write_maps(tmp_path, [[7]], [[7]])
    write_maps(tmp_path, [[7]], [[7]], name="b.png")
    (tmp_path / "pred" / "town" / "b.png").unlink()
    with pytest.raises(DataError, match=r"pred/town/b\.png: .* is missing \(1 of 2\)"):
        run_command(tmp_path)
    with pytest.raises(DataError, match=r"--ignored must name no category .* Received: \{7\}"):
        run_command(tmp_path, "--ignored", "7")
    with pytest.raises(DataError, match="must hold a list of categories, one or more"):
        run_command(tmp_path, categories=[])
    with pytest.raises(DataError, match=r"must hold a list of categories, .*\. Received: 3"):
        run_command(tmp_path, categories=3)
