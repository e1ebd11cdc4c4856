"""The command `instance-ap`: pycocotools' own figures, real annotations, and files gone wrong."""

import argparse
import contextlib
import io
import json

import numpy as np
import pytest
from coco_rules import assert_equal_to_official
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_panoptic_fpn.commands import instance_ap as command
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.instance_files import read_ground_truth, read_results


def run_command(gt_json, results, output, iou_type="segm"):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    paths = [f"--gt-json={gt_json}", f"--results={results}", f"--json={output}"]
    command.run(parser.parse_args([*paths, f"--iou-type={iou_type}"]))
    return json.loads(output.read_text())


def test_results_beyond_the_hundred_that_count_are_warned_about(tmp_path, capsys):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    truth = {
        "images": [{"id": 7, "height": 10, "width": 10}],
        "categories": categories,
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16}
        ],
    }
    box = {"image_id": 7, "bbox": [0, 0, 4, 4], "score": 0.5}
    for count, category_id, expected in ((100, 2, ""), (103, 1, "warning: 3 results do not count")):
        results = [{**box, "category_id": category_id, "score": k / 200} for k in range(count)]
        (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
        (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
        run_command(tmp_path / "gt.json", tmp_path / "results.json", tmp_path / "o.json", "bbox")
        captured = capsys.readouterr()
        assert captured.err.startswith(expected)
        assert bool(captured.err) == bool(expected)
        assert "\n1 image, 0 of them" in captured.out
    assert "image 7 has 103 of category 1" in captured.err


def official(gt_json, results, iou_type):
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(gt_json))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(results)), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_published_results(samples, tmp_path, iou_type, capsys):
    folder = samples / "metric_fixtures"
    paths = [folder / f"instances_val2014_{n}.json" for n in ("100", "fakesegm100_results")]
    result = run_command(*paths, tmp_path / "new" / "ap.json", iou_type)
    assert_equal_to_official(result, official(*paths, iou_type))
    printed = capsys.readouterr().out
    if iou_type == "segm":
        assert result["AP"] == pytest.approx(0.3195452758576433, rel=1e-12)
        assert "All       31.95   56.23   29.89" in printed
    assert (result["images"], result["images_without_results"]) == (100, 1)
    assert "100 images, 1 of them without a result" in printed


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_real_annotations_against_perturbed_copies(samples, tmp_path, iou_type):
    """Polygons, crowds as uncompressed RLE, and objects moved, doubled, missed and misnamed."""
    gt_json = samples / "coco_instances" / "instances.json"
    ground_truth, rng = read_ground_truth(gt_json, needs_masks=True), np.random.default_rng(0)
    category_ids = [category["id"] for category in ground_truth["categories"]]
    results = []
    for annotation in ground_truth["annotations"]:
        for _ in range(rng.integers(0, 3)):
            mask = mask_api.decode(annotation["segmentation"])
            rle = mask_api.encode(np.asfortranarray(np.roll(mask, rng.integers(-4, 5, 2), (0, 1))))
            is_right = rng.random() < 0.9
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"] if is_right else category_ids[0],
                    "score": round(float(rng.random()), 2),
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                }
            )
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    result = run_command(gt_json, path, tmp_path / "ap.json", iou_type)
    assert_equal_to_official(result, official(gt_json, path, iou_type))
    assert 0.1 < result["AP"] < 0.9


def rle_of(mask):
    rle = mask_api.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


MASK = np.zeros((6, 9), np.uint8)
MASK[1:4, 2:7] = 1


def write_files(folder, results=None, **changes):
    """A data set of one image of 6 x 9 pixels; `changes` are of its annotation."""
    annotation = {"id": 11, "image_id": 1, "category_id": 3, "area": 15, "bbox": [2, 1, 5, 3]}
    annotation |= {"segmentation": [[2, 1, 7, 1, 7, 4, 2, 4]], "iscrowd": 0, **changes}
    ground_truth = {
        "images": [{"id": 1, "height": 6, "width": 9, "file_name": "a.jpg"}],
        "annotations": [{k: v for k, v in annotation.items() if v is not None}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    (folder / "gt.json").write_text(json.dumps(ground_truth))
    result = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": rle_of(MASK)}
    results = [{**result, **r} for r in (results if results is not None else [{}])]
    kept = [{k: v for k, v in r.items() if v is not None} for r in results]
    (folder / "results.json").write_text(json.dumps(kept))
    return folder / "gt.json", folder / "results.json"


def test_a_class_without_ground_truth_and_an_image_without_results(tmp_path):
    result = run_command(*write_files(tmp_path), tmp_path / "ap.json")
    assert result["AP"] == pytest.approx(1)
    assert result["per_class"] == {"cat": pytest.approx(1), "dog": None}
    result = run_command(*write_files(tmp_path, results=[]), tmp_path / "ap.json")
    assert (result["AP"], result["images_without_results"]) == (0, 1)


def test_doubled_results_are_false_and_counted(tmp_path, capsys):
    results = [{}, {"score": 0.9}, {"score": 0.9}, {"score": 0.9, "bbox": [2, 1, 5, 3]}]
    paths = write_files(tmp_path, results=results[:1])
    assert run_command(*paths, tmp_path / "ap.json")["doubled_results"] == 0
    assert "repeat" not in capsys.readouterr().out
    paths = write_files(tmp_path, results=results)
    assert run_command(*paths, tmp_path / "ap.json")["doubled_results"] == 1
    assert "1 results repeat another one in full" in capsys.readouterr().out


def test_results_of_boxes_alone(tmp_path):
    boxes = [{"bbox": [2, 1, 5, 3], "segmentation": []}]
    paths = write_files(tmp_path, results=boxes)
    assert run_command(*paths, tmp_path / "ap.json", "bbox")["AP"] == pytest.approx(1)
    boxes[0]["segmentation"] = None
    paths = write_files(tmp_path, results=boxes, segmentation=[])
    assert run_command(*paths, tmp_path / "ap.json", "bbox")["AP"] == pytest.approx(1)
    with pytest.raises(DataError, match=r"annotation 11 \(image 1\): .* a box and no mask"):
        run_command(*paths, tmp_path / "ap.json", "segm")
    paths = write_files(tmp_path, results=boxes)
    with pytest.raises(DataError, match=r"result 0 \(image 1\): the key `segmentation` is missing"):
        run_command(*paths, tmp_path / "ap.json", "segm")


def test_an_output_that_cannot_be_written_does_not_lose_the_figures(tmp_path, capsys):
    with pytest.raises(DataError, match=r"cannot be written"):
        run_command(*write_files(tmp_path), tmp_path)
    assert "cat    100.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"image_id": 2}, "result 1: a result is for image id 2, which is not listed"),
        ({"image_id": [1]}, r"result 1: `image_id` must be int or str. Received: \[1\]"),
        ({"category_id": 5}, r"result 1 \(image 1\): unknown category id 5"),
        ({"category_id": {}}, r"`category_id` must be int. Received: {}"),
        ({"score": None}, r"result 1 \(image 1\): the key `score` is missing"),
        ({"score": "high"}, r"\(image 1\): `score` must be a number\. Received: 'high'"),
        ({"score": float("nan")}, "`score` must be a number"),
        ({"bbox": [1, 2, 3]}, r"`bbox` must be four finite numbers, .* Received: \[1, 2, 3\]"),
        (
            {"segmentation": rle_of(MASK.T)},
            r"\(image 1\): the RLE.s size must be \[6, 9\], .* Received: \[9, 6\]",
        ),
        (
            {"segmentation": {"size": [6, 9]}},
            r"\(image 1\): the RLE.s counts must be a list or text",
        ),
        (
            {"segmentation": {"size": [6, 9], "counts": rle_of(MASK)["counts"][:-1]}},
            r"\(image 1\): the RLE.s counts must sum to 54, .* Received: 40",
        ),
        ({"segmentation": {"size": [6, 9], "counts": ""}}, "the RLE.s counts are not COCO.s text"),
        (
            {"segmentation": {"size": [6, 9], "counts": "~0"}},
            "the RLE.s counts are not COCO.s text",
        ),
    ],
)
def test_wrong_results(tmp_path, result, message):
    gt_json, results = write_files(tmp_path, results=[{}, result])
    with pytest.raises(DataError, match=message):
        read_results(results, read_ground_truth(gt_json, needs_masks=True), needs_masks=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"area": None},
        {"bbox": None},
        {"bbox": []},
        {"id": None},
        {"id": "a-1"},
        {"id": "11"},
        {"iscrowd": "0"},
        {"iscrowd": False},
        {"image_id": "1", "category_id": 3.0},
        {"segmentation": [[2, 1, 7, 1, 7, 4, 2, 4], [1, 2, 3, 4]]},
    ],
)
def test_what_can_mean_one_thing_only_is_read_as_that(tmp_path, changes):
    plain = read_ground_truth(write_files(tmp_path)[0], needs_masks=True)
    read = read_ground_truth(write_files(tmp_path, **changes)[0], needs_masks=True)
    (expected,), (annotation,) = plain["annotations"], read["annotations"]
    for entry in (expected, annotation):
        entry["segmentation"]["counts"] = bytes(entry["segmentation"]["counts"])
    if "id" in changes:
        expected["id"] = {None: 0, "a-1": "a-1", "11": 11}[changes["id"]]
    assert annotation == expected
    assert run_command(*write_files(tmp_path, **changes), tmp_path / "ap.json")["AP"] > 0.999


def test_boxes_ask_for_boxes(tmp_path):
    paths = write_files(tmp_path, segmentation=None, bbox=None)
    with pytest.raises(DataError, match=r"annotation 11 \(image 1\): the key `bbox` is missing"):
        read_ground_truth(paths[0], needs_masks=False)
    gt_json, results = write_files(tmp_path, results=[{"segmentation": None}])
    with pytest.raises(DataError, match=r"result 0 \(image 1\): the key `bbox` is missing"):
        read_results(results, read_ground_truth(gt_json, needs_masks=False), needs_masks=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_id": 2},
            r"annotation 11 \(image 2\): an annotation is for image id 2, which is not listed",
        ),
        ({"category_id": 5}, r"annotation 11 \(image 1\): unknown category id 5"),
        ({"segmentation": []}, r"\(image 1\): the annotation has a box and no mask"),
        (
            {"segmentation": {"size": [6, 9], "counts": [6, 8]}},
            "must sum to 54, the image.s pixels",
        ),
    ],
)
def test_wrong_ground_truth(tmp_path, changes, message):
    gt_json, _ = write_files(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        read_ground_truth(gt_json, needs_masks=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", [], "the data set has no images"),
        ("images", [{"id": 1, "height": 6, "width": 9}] * 2, "Received twice: 1"),
        ("images", [{"id": 1, "height": 6}], "the key `width` is missing"),
        ("images", [3], "`images` must be a list of objects"),
        (
            "images",
            [{"id": [], "height": 6, "width": 9}],
            r"`id` must be int or str. Received: \[\]",
        ),
        ("annotations", {}, "`annotations` must be a list"),
        ("annotations", [{}], "the key `image_id` is missing"),
        ("categories", [{"id": 3}], "a category needs `id` and `name`"),
    ],
)
def test_wrong_lists(tmp_path, key, value, message):
    gt_json, _ = write_files(tmp_path)
    tree = json.loads(gt_json.read_text())
    gt_json.write_text(json.dumps({**tree, key: value}))
    with pytest.raises(DataError, match=message):
        read_ground_truth(gt_json, needs_masks=True)


def test_doubled_annotations_and_files_cut_short(tmp_path):
    gt_json, results = write_files(tmp_path)
    ground_truth = read_ground_truth(gt_json, needs_masks=True)
    tree = json.loads(gt_json.read_text())
    gt_json.write_text(json.dumps({**tree, "annotations": tree["annotations"] * 2}))
    with pytest.raises(
        DataError, match=r"annotation 11 \(image 1\): annotation ids must be unique"
    ):
        read_ground_truth(gt_json, needs_masks=True)
    results.write_text(results.read_text()[:-5])
    with pytest.raises(DataError, match=r"results\.json: not JSON, or cut short"):
        read_results(results, ground_truth, needs_masks=True)
    with pytest.raises(DataError, match=r"none\.json: cannot be read: No such file"):
        read_results(tmp_path / "none.json", ground_truth, needs_masks=True)
    with pytest.raises(DataError, match=r"gt\.json: must hold a list\. Received: dict"):
        read_results(gt_json, ground_truth, needs_masks=True)


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.integers(0, 40000), min_size=1, max_size=12),
    height=st.sampled_from([1, 7, 480]),
)
def test_any_run_lengths_are_read(tmp_path_factory, runs, height):
    width = max(-(-sum(runs) // height), 1)
    runs[-1] += height * width - sum(runs)
    rle = mask_api.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    rle["counts"] = rle["counts"].decode()
    folder = tmp_path_factory.getbasetemp()
    image = {"id": 1, "height": height, "width": width}
    ground_truth = {"images": [image], "categories": [{"id": 3, "name": "cat"}]}
    result = {"image_id": 1, "category_id": 3, "score": 1, "segmentation": rle}
    (folder / "results.json").write_text(json.dumps([result]))
    read = read_results(folder / "results.json", ground_truth, needs_masks=True)
    assert mask_api.area(read[0]["segmentation"]) == sum(runs[1::2])
