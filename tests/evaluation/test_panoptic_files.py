"""Panoptic quality of files: the command, its table and its errors."""

import argparse
import copy
import json
import sys

import numpy as np
import panopticapi_rules
import pytest
from PIL import Image

from tf_panoptic_fpn.commands import panoptic_quality as command
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.evaluation.panoptic_files import evaluate_panoptic_files, format_pq_table
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png

CAT, SKY = 17, 92
CATEGORIES = [{"id": CAT, "isthing": 1}, {"id": SKY, "isthing": 0, "name": "sky"}]
NUM_IMAGES = 40  # more than one chunk
GT_IDS = np.array([[1, 1, 1, 300], [0, 300, 300, 300]])
PRED_IDS = np.array([[70000, 70000, 300, 300], [0, 300, 300, 300]])


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def annotation(image_id, cat_id):
    """Cat: IoU 2/3. Sky: IoU 4/5. The area of the cat of image 3 is wrong: IoU 2/4."""
    return {
        "image_id": image_id,
        "file_name": f"{image_id}.png",
        "segments_info": [
            {"id": cat_id, "category_id": CAT, "iscrowd": 0, "area": 4 if image_id == 3 else 3},
            {"id": 300, "category_id": SKY, "iscrowd": 0, "area": 4},
        ],
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a ground truth and predictions, which tests must leave as they are."""
    folder = tmp_path_factory.mktemp("panoptic")
    for kind, ids, cat_id in (("gt", GT_IDS, 1), ("pred", PRED_IDS, 70000)):
        (folder / kind).mkdir()
        for image_id in range(NUM_IMAGES):
            write_panoptic_png(ids, folder / kind / f"{image_id}.png")
        tree = {"annotations": [annotation(i, cat_id) for i in range(NUM_IMAGES)]}
        if kind == "gt":
            tree["categories"] = CATEGORIES
        (folder / f"{kind}.json").write_text(json.dumps(tree))
    return folder


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_figures_of_files(written, platform, monkeypatch):
    """With processes and with threads."""
    monkeypatch.setattr(sys, "platform", platform)
    result = evaluate_panoptic_files(written / "gt.json", written / "pred.json")
    cat_pq = 39 * 2 / 3 / NUM_IMAGES  # image 3: one false positive, one missed
    assert result["per_class"]["17"]["PQ"] == pytest.approx(cat_pq, abs=1e-12)
    assert result["All"]["PQ"] == pytest.approx((cat_pq + 4 / 5) / 2, abs=1e-12)
    strict = evaluate_panoptic_files(written / "gt.json", written / "pred.json", strict=True)
    assert strict["Things"]["PQ"] == pytest.approx(2 / 3, abs=1e-12)


def test_files_are_scored_as_panopticapi_does(written):
    pairs = [
        (
            written / "gt" / f"{i}.png",
            annotation(i, 1)["segments_info"],
            written / "pred" / f"{i}.png",
            annotation(i, 70000)["segments_info"],
        )
        for i in range(NUM_IMAGES)
    ]
    totals = panopticapi_rules.evaluate_part(pairs, {CAT, SKY})
    result = evaluate_panoptic_files(written / "gt.json", written / "pred.json")
    figures = [result["All"][key] for key in ("PQ", "SQ", "RQ", "n")]
    assert figures == pytest.approx(panopticapi_rules.averages(totals, {CAT, SKY}), rel=1e-12)


def test_command(written, tmp_path, capsys):
    run(
        *("--gt-json", written / "gt.json", "--pred-json", written / "pred.json"),
        *("--json", tmp_path / "out.json", "--split", f"both={CAT},{SKY}"),
    )
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[:7] == [
        "Evaluation panoptic segmentation metrics:",
        "Ground truth:",
        f"\tSegmentation folder: {written / 'gt'}",
        f"\tJSON file: {written / 'gt.json'}",
        "Prediction:",
        f"\tSegmentation folder: {written / 'pred'}",
        f"\tJSON file: {written / 'pred.json'}",
    ]
    assert lines[7:13] == [
        "          |    PQ     SQ     RQ     N",
        "--------------------------------------",
        "All       |  72.5   73.3   98.8     2",
        "Things    |  65.0   66.7   97.5     1",
        "Stuff     |  80.0   80.0  100.0     1",
        "both      |  72.5   73.3   98.8     2",
    ]
    assert lines[13].startswith("Time elapsed: ")
    assert captured.err.startswith("warning: in 1 image the ids or areas in the JSON")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["splits"]["both"] == result["All"]
    assert set(result["per_class"]) == {"17", "sky"}


def test_command_with_the_names_of_panopticapi(written, capsys):
    run(
        *("--gt_json_file", written / "gt.json", "--gt_folder", written / "gt", "--strict"),
        *("--pred_json_file", written / "pred.json", "--pred_folder", written / "pred"),
    )
    captured = capsys.readouterr()
    assert "All       |  73.3   73.3  100.0     2" in captured.out
    assert captured.err == ""


def test_published_figures(samples, tmp_path):
    folder = samples / "metric_fixtures" / "pq_single"
    run(
        *("--gt-json", folder / "gt.json", "--pred-json", folder / "pred.json"),
        *("--json", tmp_path / "out.json"),
    )
    result = json.loads((tmp_path / "out.json").read_text())
    # The published figures are float32: one part in 10 million.
    assert result["All"]["PQ"] == pytest.approx(0.62156284, rel=1e-7)
    assert result["All"]["SQ"] == pytest.approx(0.64664984, rel=1e-7)
    assert result["All"]["RQ"] == pytest.approx(0.9666667, rel=1e-7)


def test_a_split_without_a_class_is_a_dash():
    full, empty = {"PQ": 1, "SQ": 1, "RQ": 1, "n": 3}, {"PQ": 0, "SQ": 0, "RQ": 0, "n": 0}
    table = format_pq_table({"All": full, "Things": full, "Stuff": empty, "splits": {"All": empty}})
    assert table.splitlines()[2:] == [
        "All       | 100.0  100.0  100.0     3",
        "Things    | 100.0  100.0  100.0     3",
        "Stuff     |     -      -      -     0",
        "All       |     -      -      -     0",
    ]


@pytest.mark.parametrize("text", ["both", "both=", "both=1,x"])
def test_splits_that_cannot_be_read(written, text):
    with pytest.raises(ConfigError, match=rf"--split must be NAME=ID,ID. Received: {text}"):
        run("--gt-json", written / "gt.json", "--pred-json", written / "pred.json", "--split", text)


def test_split_of_an_unknown_category(written):
    with pytest.raises(DataError, match=r"'odd' has unknown category ids. Received: \[5\]"):
        run(
            *("--gt-json", written / "gt.json", "--pred-json", written / "pred.json"),
            *("--split", "odd=5"),
        )


def first(tree):
    return tree["annotations"][0]


def break_tree(gt, pred, case):
    """Breaks one thing in the JSON of both."""
    if case == "missing":
        del pred["annotations"][5]
    elif case == "doubled":
        pred["annotations"].append(pred["annotations"][2])
    elif case == "doubled truth":
        gt["annotations"].append(gt["annotations"][2])
    elif case == "empty":
        gt["annotations"] = []
    elif case == "no annotations":
        del pred["annotations"]
    elif case == "no categories":
        del gt["categories"]
    elif case == "no isthing":
        del gt["categories"][0]["isthing"]
    elif case == "no file name":
        del first(pred)["file_name"]
    elif case == "no segments":
        first(pred)["segments_info"] = None
    elif case == "no id":
        del first(pred)["segments_info"][1]["id"]
    elif case == "text for area":
        first(gt)["segments_info"][1]["area"] = "many"
    elif case == "category":
        first(pred)["segments_info"][0]["category_id"] = 5
    elif case == "category of the truth":
        first(gt)["segments_info"][0]["category_id"] = 5
    elif case == "png only":
        del first(pred)["segments_info"][0]
    elif case == "json only":
        first(pred)["segments_info"].append({"id": 8, "category_id": CAT})
    elif case == "twice":
        first(pred)["segments_info"].append(first(pred)["segments_info"][0])
    elif case == "no png":
        first(pred)["file_name"] = "none.png"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"pred.json: no prediction for image id 5 \(1 of 40 images have none\)"),
        ("doubled", r"pred.json: image id 2 has more than one annotation"),
        ("doubled truth", r"gt.json: image id 2 has more than one annotation"),
        ("empty", r"gt.json: there are no annotations"),
        ("no annotations", "pred.json: the key `annotations` is missing"),
        ("no categories", "gt.json: the key `categories` is missing"),
        ("no isthing", r'gt.json: the key `isthing` is missing. Received: {"id": 17}'),
        ("no file name", "pred.json: image id 0: the key `file_name` is missing"),
        ("no segments", r"pred.json: image id 0: `segments_info` must be a list of objects"),
        ("no id", r'pred.json: image id 0: the key `id` is missing. .*"category_id": 92'),
        ("text for area", "gt.json: image id 0: segment 300: `area` must be a number"),
        ("category", "pred.json: image id 0: unknown category id 5"),
        ("category of the truth", "gt.json: image id 0: unknown category id 5"),
        ("png only", r"id 0 \(0.png\): prediction: the map holds ids .* not listed.* \[70000\]"),
        ("json only", r"id 0 \(0.png\): prediction: listed segments have no pixel.* \[8\]"),
        ("twice", "pred.json: image id 0: the segment id 70000 occurs twice"),
        ("no png", r"image id 0: .*none.png: the panoptic map file is missing"),
    ],
)
def test_json_errors(written, tmp_path, case, message):
    gt, pred = (json.loads((written / f"{kind}.json").read_text()) for kind in ("gt", "pred"))
    break_tree(gt, pred, case)
    for kind, tree in (("gt", gt), ("pred", pred)):
        (tmp_path / f"{kind}.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=message):
        evaluate_panoptic_files(
            tmp_path / "gt.json", tmp_path / "pred.json", written / "gt", written / "pred"
        )


@pytest.mark.parametrize(
    ("case", "strict", "expected"),
    [
        ("png only", False, 0.8),
        ("json only", False, 0.8),
        ("png only", True, r"holds ids that are not listed.* \[1\]"),
        ("json only", True, r"segments have no pixel. Received: \[8\]"),
    ],
)
def test_ids_of_the_truth_that_differ(written, tmp_path, case, strict, expected):
    """As panopticapi they are no match and no void; strictly they are an error."""
    gt = json.loads((written / "gt.json").read_text())
    break_tree(None, gt, case)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    arguments = tmp_path / "gt.json", written / "pred.json", written / "gt", None, strict
    if strict:
        with pytest.raises(DataError, match=rf"image id 0 \(0.png\): ground truth: .*{expected}"):
            evaluate_panoptic_files(*arguments)
        return
    result = evaluate_panoptic_files(*arguments)
    assert result["num_mismatched"] == 2  # the area in image 3 is wrong
    assert result["Stuff"]["PQ"] == pytest.approx(expected)
    cat = result["per_class"]["17"]
    expected_counts = (38, 2, 1) if case == "png only" else (39, 1, 2)
    assert (cat["tp"], cat["fp"], cat["fn"]) == expected_counts


def test_predictions_of_other_images_are_not_looked_at(written, tmp_path):
    pred = json.loads((written / "pred.json").read_text())
    extra = copy.deepcopy(first(pred))
    extra.update(image_id="another", file_name="none.png")
    pred["annotations"].insert(0, extra)
    (tmp_path / "pred.json").write_text(json.dumps(pred))
    result = evaluate_panoptic_files(
        written / "gt.json", tmp_path / "pred.json", pred_dir=written / "pred"
    )
    expected = evaluate_panoptic_files(written / "gt.json", written / "pred.json")
    assert result == expected


@pytest.mark.parametrize(
    ("mode", "message"),
    [("P", "1-bit palette"), ("I;16", "16-bit grey"), ("L", "8-bit grey"), ("size", "one size")],
)
def test_maps_of_another_kind(written, tmp_path, mode, message):
    (tmp_path / "pred").mkdir()
    for path in (written / "pred").iterdir():
        (tmp_path / "pred" / path.name).symlink_to(path)
    (tmp_path / "pred" / "7.png").unlink()
    image = Image.new("RGB", (3, 2)) if mode == "size" else Image.new(mode, (4, 2))
    image.save(tmp_path / "pred" / "7.png")
    with pytest.raises(DataError, match=rf"image id 7\b.*{message}"):
        evaluate_panoptic_files(
            written / "gt.json", written / "pred.json", pred_dir=tmp_path / "pred"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": [{"image_id": 1, "file', "pred.json: not JSON: Unterminated string"),
        ("[]", "pred.json: must hold a JSON object. Received: list"),
        (None, "pred.json: cannot be read: No such file"),
    ],
)
def test_json_files_that_cannot_be_read(written, tmp_path, text, message):
    if text is not None:
        (tmp_path / "pred.json").write_text(text)
    with pytest.raises(DataError, match=message):
        evaluate_panoptic_files(written / "gt.json", tmp_path / "pred.json")


def test_missing_folder(written, tmp_path):
    with pytest.raises(DataError, match="none: the folder of panoptic PNGs is missing"):
        evaluate_panoptic_files(
            written / "gt.json", written / "pred.json", pred_dir=tmp_path / "none"
        )
