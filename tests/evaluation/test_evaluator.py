"""The evaluation loop with predictors that know the answer, in part or in full."""

import dataclasses
import json
import threading

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.evaluator import evaluate
from tf_panoptic_fpn.evaluation.threshold_sweep import ThresholdSweep
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.formats.records import Instance
from tf_panoptic_fpn.metrics.coco_ap import coco_ap
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality
from tf_panoptic_fpn.results.result import Result, segments_info

SKY, CAT, ROAD, DOG = 3, 17, 40, 90
TABLE = CategoryTable(
    (
        Category(SKY, "sky", False, (70, 130, 180)),
        Category(CAT, "cat", True),
        Category(ROAD, "road", False),
        Category(DOG, "dog", True),
    )
)
SIZE = (24, 36)
CAT_BOX, DOG_BOX = (4, 2, 12, 10), (10, 20, 22, 34)  # yxyx


@dataclasses.dataclass(frozen=True)
class Segment:
    id: int
    category_id: int
    is_crowd: bool = False


@dataclasses.dataclass(frozen=True)
class Record:
    image_id: int
    file_name: str
    segments: tuple
    instances: tuple | None = None
    image_path: str = __file__
    height: int = SIZE[0]
    width: int = SIZE[1]


def fill(ids, box, value):
    y1, x1, y2, x2 = box
    ids[y1:y2, x1:x2] = value


def make_samples(count):
    """Sky above road, a cat, a dog, and one column of void; ids are not 1..N."""
    segments = (Segment(500, SKY), Segment(7, ROAD), Segment(70000, CAT), Segment(12, DOG))
    samples = []
    for index in range(count):
        ids = np.full(SIZE, 500, np.int32)
        ids[14:] = 7
        fill(ids, CAT_BOX, 70000)
        fill(ids, DOG_BOX, 12)
        ids[:, 35] = 0
        image = np.full((*SIZE, 3), 10 * index, np.uint8)
        samples.append((Record(100 + index, f"day/{index}.jpg", segments), image, ids))
    return samples


def perfect_outputs():
    panoptic_map = np.full(SIZE, 3, np.int32)
    panoptic_map[14:] = 4
    fill(panoptic_map, CAT_BOX, 1)
    fill(panoptic_map, DOG_BOX, 2)
    semantic = np.where(panoptic_map >= 3, panoptic_map - 2, 0).astype(np.int32)
    areas = np.bincount(panoptic_map.ravel(), minlength=7)[1:]
    padding = np.zeros((2, 4), np.float32)
    boxes = np.float32([CAT_BOX, DOG_BOX, (0, 0, 14, 36), (14, 0, 24, 36), *padding])
    return {
        "panoptic_map": panoptic_map,
        "category_ids": np.int32([CAT, DOG, SKY, ROAD, 0, 0]),
        "is_thing": np.array([1, 1, 0, 0, 0, 0], bool),
        "scores": np.float32([0.875, 0.75, 1, 1, 0, 0]),
        "areas": areas.astype(np.int32),
        "boxes": boxes,
        "num_segments": np.int32(4),
        schema.INSTANCES: {
            "boxes": np.float32([CAT_BOX, DOG_BOX, (0, 0, 0, 0)]),
            "scores": np.float32([0.875, 0.75, 0]),
            "classes": np.int32([0, 1, -1]),
            "mask_probs": np.ones((3, 28, 28), np.float32),
            "num_detections": np.int32(2),
        },
        schema.SEMANTIC_MAP: semantic,
    }


def empty_outputs():
    return {
        "panoptic_map": np.zeros(SIZE, np.int32),
        "category_ids": np.zeros(6, np.int32),
        "is_thing": np.zeros(6, bool),
        "scores": np.zeros(6, np.float32),
        "areas": np.zeros(6, np.int32),
        "boxes": np.zeros((6, 4), np.float32),
        "num_segments": np.int32(0),
        schema.INSTANCES: {
            "boxes": np.zeros((3, 4), np.float32),
            "scores": np.zeros(3, np.float32),
            "classes": np.full(3, -1, np.int32),
            "mask_probs": np.zeros((3, 28, 28), np.float32),
            "num_detections": np.int32(0),
        },
        schema.SEMANTIC_MAP: np.zeros(SIZE, np.int32),
    }


def perfect_prediction(_image):
    return Result.from_outputs(perfect_outputs(), TABLE)


def empty_prediction(_image):
    return Result.from_outputs(empty_outputs(), TABLE)


def test_a_perfect_predictor():
    results = evaluate(perfect_prediction, iter(make_samples(7)), TABLE)
    assert results["images"] == 7
    assert 0 < results["seconds_per_image"] < 1
    for group, n in (("All", 4), ("Things", 2), ("Stuff", 2)):
        assert results["panoptic"][group] == {"PQ": 1, "SQ": 1, "RQ": 1, "n": n}
    assert results["panoptic"]["per_class"]["dog"]["tp"] == 7
    assert results["semantic"]["mIoU"] == results["semantic"]["pixel_accuracy"] == 1
    assert list(results["semantic"]["per_class"]) == ["other (things)", "sky", "road"]
    for name in ("box_ap", "mask_ap"):
        assert results[name]["AP"] == results[name]["AP75"] == pytest.approx(1)


def test_an_empty_prediction():
    results = evaluate(empty_prediction, make_samples(2), TABLE)
    assert results["panoptic"]["All"] == {"PQ": 0, "SQ": 0, "RQ": 0, "n": 4}
    assert results["box_ap"]["AP"] == results["mask_ap"]["AP"] == 0
    things = 8 * 8 + 12 * 14
    assert results["semantic"]["pixel_accuracy"] == pytest.approx(things / (24 * 35))
    assert results["semantic"]["mIoU"] == pytest.approx(things / (24 * 35) / 3)


def test_half_right():
    """On the second image the cat and dog change places: 1 of 2 is right for each."""

    def predictor(image):
        outputs = perfect_outputs()
        if image[0, 0, 0] == 10:
            outputs["category_ids"] = np.int32([DOG, CAT, SKY, ROAD, 0, 0])
            outputs["instances"]["classes"] = np.int32([1, 0, -1])
        return Result.from_outputs(outputs, TABLE)

    results = evaluate(predictor, make_samples(2), TABLE)
    assert results["panoptic"]["Things"]["PQ"] == pytest.approx(0.5)
    assert results["panoptic"]["Stuff"]["PQ"] == 1
    assert results["panoptic"]["per_class"]["cat"]["fp"] == 1
    # Cat: the right one, at 0.875, comes before the wrong one; dog: after it, so precision is 0.5.
    assert results["mask_ap"]["AP"] == pytest.approx((1 + 0.5) / 2 * 51 / 101)


def test_the_files_hold_what_was_scored(tmp_path):
    samples = make_samples(3)
    out = tmp_path / "new" / "out"
    results = evaluate(perfect_prediction, samples, TABLE, out, num_overlays=2)

    panoptic = json.loads((out / "panoptic.json").read_text())
    assert panoptic["categories"] == TABLE.to_coco()
    assert panoptic["images"][1] == {
        "id": 101,
        "file_name": "day/1.jpg",
        "height": 24,
        "width": 36,
    }
    assert panoptic["annotations"][0]["segments_info"][:3] == [
        {
            "id": 1,
            "category_id": CAT,
            "area": 64,
            "bbox": [2, 4, 8, 8],
            "score": 0.875,
        },
        {"id": 2, "category_id": DOG, "area": 168, "bbox": [20, 10, 14, 12], "score": 0.75},
        {"id": 3, "category_id": SKY, "area": 504 - 64 - 56, "bbox": [0, 0, 36, 14]},
    ]
    again = PanopticQuality(TABLE)
    for (record, _, ids), annotation in zip(samples, panoptic["annotations"], strict=True):
        assert annotation["image_id"] == record.image_id
        pred_ids = read_panoptic_png(out / "panoptic" / annotation["file_name"])
        gt_segments = [dataclasses.asdict(s) for s in record.segments]
        again.update(ids, gt_segments, pred_ids, annotation["segments_info"])
    assert again.result() == results["panoptic"]

    instances = json.loads((out / "instances.json").read_text())
    assert [i["image_id"] for i in instances] == [100, 100, 101, 101, 102, 102]
    assert instances[1]["category_id"] == DOG
    assert instances[1]["bbox"] == [20, 10, 14, 12]
    assert instances[1]["segmentation"]["size"] == [24, 36]
    ground_truth = {
        "images": panoptic["images"],
        "categories": TABLE.to_coco(),
        "annotations": [
            {
                "image_id": 100 + index,
                "category_id": CAT,
                "bbox": [2, 4, 8, 8],
                "area": 64,
                "iscrowd": 0,
            }
            for index in range(3)
        ],
    }
    assert coco_ap(ground_truth, instances, "bbox")["AP"] == pytest.approx(1)

    overlays = sorted((out / "overlays").iterdir())
    assert [path.name for path in overlays] == ["day_0.jpg", "day_1.jpg"]
    assert Image.open(overlays[0]).size == (2 * 720 + 8, 480 + 30)


def test_equal_file_names_do_not_overwrite_each_other(tmp_path):
    first, second = make_samples(2)
    second = (dataclasses.replace(second[0], file_name="day/0.png"), *second[1:])
    evaluate(perfect_prediction, [first, second], TABLE, tmp_path, num_overlays=0)
    names = sorted(path.name for path in (tmp_path / "panoptic").iterdir())
    assert names == ["day_0.png", "day_0_101.png"]


def test_flattened_names_do_not_overwrite_each_other(tmp_path):
    """`a/b_c` and `a_b/c`, and ids that are paths themselves, as those of label maps."""
    names = ("a/b_c", "a_b/c", "a_b_c_a_b/c")
    samples = [
        (dataclasses.replace(record, file_name=f"{name}.jpg", image_id=name), image, ids)
        for name, (record, image, ids) in zip(names, make_samples(3), strict=True)
    ]
    options = {"identity": {}, "num_overlays": 3}
    results = evaluate(perfect_prediction, samples, TABLE, tmp_path, **options)
    stems = ["a_b_c", "a_b_c_a_b_c", "a_b_c_a_b_c_a_b_c_a_b_c"]
    for folder in ("panoptic", "semantic", "overlays"):
        assert sorted(path.stem for path in (tmp_path / folder).iterdir()) == stems
    predict, calls = killed_at(0)
    assert evaluate(predict, samples, TABLE, tmp_path, **options) == results
    assert calls == []


def test_more_than_255_classes(tmp_path):
    """The last class is far above what a byte holds, and 255 is a class like the others."""
    things = tuple(Category(i, f"thing {i}", True) for i in (CAT, DOG))
    stuff = tuple(Category(1000 + i, f"stuff {i}", False) for i in range(600))
    table = CategoryTable(things + stuff)
    classes = table.semantic_classes
    sky, road = 1000 + 254, 1000 + 599
    assert (classes[sky], classes[road]) == (255, 600)

    def predict(_image):
        outputs = perfect_outputs()
        outputs["category_ids"] = np.array([CAT, DOG, sky, road, -1, -1])
        outputs[schema.SEMANTIC_MAP] = np.array([0, 255, 600])[outputs[schema.SEMANTIC_MAP]]
        return Result.from_outputs(outputs, table)

    record, image, ids = make_samples(1)[0]
    segments = (Segment(500, sky), Segment(7, road), *record.segments[2:])
    sample = (dataclasses.replace(record, segments=segments), image, ids)
    results = evaluate(predict, [sample], table, tmp_path, 0, identity={})
    assert results["semantic"]["mIoU"] == 1
    assert results["panoptic"]["All"]["PQ"] == 1
    none_left, _ = killed_at(0)
    again = evaluate(none_left, [sample], table, tmp_path, 0, identity={})
    assert again["semantic"] == results["semantic"]


def test_scoring_runs_while_the_predictor_works():
    """The second prediction waits until the first image is being scored."""
    scoring = threading.Event()

    samples = make_samples(2)
    record, image, ids = samples[0]

    class Segments(tuple):
        def __iter__(self):
            scoring.set()
            return super().__iter__()

    samples[0] = (dataclasses.replace(record, segments=Segments(record.segments)), image, ids)

    def predictor(image):
        if image[0, 0, 0] == 10:
            assert scoring.wait(timeout=20)
        return perfect_prediction(image)

    assert evaluate(predictor, samples, TABLE)["images"] == 2


def test_two_predictors_work_at_once_and_give_the_results_of_one():
    meeting = threading.Barrier(2, timeout=20)

    def together(image):
        meeting.wait()
        return perfect_prediction(image)

    samples = make_samples(6)
    two = evaluate([together, together], samples, TABLE)
    one = evaluate(perfect_prediction, samples, TABLE)
    assert without_time(two) == without_time(one)


def test_few_images_are_read_ahead():
    scored = 0
    furthest = 0

    def count(*_):
        nonlocal scored
        scored += 1

    def samples():
        nonlocal furthest
        for number, sample in enumerate(make_samples(24)):
            furthest = max(furthest, number - scored)
            yield sample

    evaluate(perfect_prediction, samples(), TABLE, on_image=count)
    assert scored == 24
    assert furthest <= 8


class Killed(Exception):
    pass


def killed_at(number, predictor=perfect_prediction):
    """A predictor that fails at its call `number`, counted from 0, and a list of its calls."""
    calls = []

    def predict(image):
        calls.append(image[0, 0, 0] // 10)
        if len(calls) > number:
            raise Killed
        return predictor(image)

    return predict, calls


@pytest.mark.parametrize(
    "sweep_settings", [(), (MergeConfig(stuff_area=0), MergeConfig(score_threshold=0.8))]
)
def test_a_killed_evaluation_goes_on(tmp_path, sweep_settings):
    def half_right(image):
        return empty_prediction(image) if image[0, 0, 0] in (10, 60) else perfect_prediction(image)

    def sweep():
        return ThresholdSweep(fake_merge, sweep_settings, TABLE) if sweep_settings else None

    options = {"identity": {"model": "a", "sizes": (3, 4)}, "num_overlays": 1}
    samples = make_samples(9)
    expected = evaluate(half_right, samples, TABLE, tmp_path / "whole", sweep=sweep(), **options)
    killed, _ = killed_at(5, half_right)
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        evaluate(killed, samples, TABLE, folder, sweep=sweep(), **options)
    lines = (folder / "records.jsonl").read_bytes()
    assert lines.count(b"\n") == 5
    with (folder / "records.jsonl").open("ab") as file:
        file.write(lines[: len(lines) // 2].splitlines()[-1][:40])  # half a line
    rest, calls = killed_at(4, half_right)
    results = evaluate(rest, samples, TABLE, folder, sweep=sweep(), **options)
    assert sorted(calls) == [5, 6, 7, 8]
    assert without_time(results) == without_time(expected)
    for name in ("panoptic.json", "instances.json"):
        assert (folder / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert files_below(folder) == files_below(tmp_path / "whole")

    none_left, calls = killed_at(0)
    again = evaluate(none_left, samples, TABLE, folder, sweep=sweep(), **options)
    assert calls == []
    assert again == results


def test_results_of_another_model_are_not_kept(tmp_path, capsys):
    samples = make_samples(2)
    evaluate(perfect_prediction, samples, TABLE, tmp_path, 0, identity={"model": "a", "size": 1})
    stale = tmp_path / "panoptic" / "of_an_image_that_is_gone.png"
    stale.touch()
    predict, calls = killed_at(2)
    evaluate(predict, samples, TABLE, tmp_path, 0, identity={"model": "b", "size": 1})
    assert len(calls) == 2
    assert not stale.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{tmp_path}: deleted the results of another model, evaluating anew"


def test_a_sweep_of_kept_detections_needs_no_model(tmp_path):
    """Without a sweep none are kept, so the first one predicts again; the next does not."""
    samples = make_samples(2)
    evaluate(perfect_prediction, samples, TABLE, tmp_path, 0, identity={})
    for threshold, expected_calls in ((0.5, 2), (0.9, 0)):
        setting = MergeConfig(score_threshold=threshold)
        predict, calls = killed_at(expected_calls)
        sweep = ThresholdSweep(fake_merge, [setting], TABLE)
        results = evaluate(predict, samples, TABLE, tmp_path, 0, sweep=sweep, identity={})
        assert len(calls) == expected_calls
    assert results["sweep"] == [
        {
            "score_threshold": 0.9,
            "overlap_threshold": 0.5,
            "stuff_area": 4096,
            "PQ": 0.5,
            "SQ": 0.5,
            "RQ": 0.5,
        }
    ]


def fake_merge(instances, semantic, image_size, merge):
    """The perfect map, of which things below the threshold are left out with their pixels."""
    assert image_size == SIZE
    prediction = perfect_outputs()
    assert instances["num_detections"] in (0, 2)
    np.testing.assert_array_equal(semantic > 2, False)
    if merge.score_threshold > 0.875:
        things = prediction["panoptic_map"] <= 2
        prediction["panoptic_map"] = np.where(things, 0, prediction["panoptic_map"] - 2)
        prediction["num_segments"] = np.int32(2)
        for name in ("category_ids", "is_thing", "scores", "areas", "boxes"):
            prediction[name] = prediction[name][2:]
    return prediction


def test_instances_of_a_file_replace_the_things_of_the_map():
    """The file has one cat of another box, which overlaps nothing that is predicted."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[16:24, 0:10] = 1
    instance = Instance(1, CAT, False, None, None, mask_api.encode(mask))
    samples = make_samples(2)
    other = [(dataclasses.replace(r, instances=(instance,)), i, m) for r, i, m in samples]
    results = evaluate(perfect_prediction, other, TABLE)
    assert results["panoptic"]["All"]["PQ"] == 1
    assert results["mask_ap"]["AP"] == results["box_ap"]["AP"] == 0
    assert results["mask_ap"]["APs"] == 0  # 80 pixels
    things = [(dataclasses.replace(r, instances=()), i, m) for r, i, m in samples]
    assert evaluate(perfect_prediction, things, TABLE)["mask_ap"]["AP"] is None


def test_ground_truth_without_panoptic_maps():
    """One segment a class, and instances alone: no PQ, but AP and IoU as far as they go."""
    samples = make_samples(2)
    results = evaluate(perfect_prediction, samples, TABLE, has_panoptic=False)
    assert "panoptic" not in results
    assert results["semantic"]["mIoU"] == 1
    bare = [
        (dataclasses.replace(r, segments=(), instances=instances_of(ids)), i, np.zeros_like(ids))
        for r, i, ids in samples
    ]
    results = evaluate(perfect_prediction, bare, TABLE, has_panoptic=False)
    assert "panoptic" not in results
    assert "semantic" not in results
    assert results["mask_ap"]["AP"] == pytest.approx(1)
    assert results["absent_classes"] == ["sky", "road"]


def instances_of(ids):
    rles = [mask_api.encode(np.asfortranarray(ids == i).view(np.uint8)) for i in (70000, 12)]
    return tuple(
        Instance(number, category_id, False, None, None, rle)
        for number, (category_id, rle) in enumerate(zip((CAT, DOG), rles, strict=True))
    )


def test_classes_that_do_not_occur_are_named():
    (record, image, ids), other = make_samples(2)
    without_dog = tuple(s for s in record.segments if s.category_id != DOG)
    sample = (dataclasses.replace(record, segments=without_dog), image, np.where(ids == 12, 0, ids))
    assert evaluate(perfect_prediction, [sample], TABLE)["absent_classes"] == ["dog"]
    assert evaluate(perfect_prediction, [sample, other], TABLE)["absent_classes"] == []


def test_errors():
    with pytest.raises(DataError, match="at least one image"):
        evaluate(perfect_prediction, [], TABLE)
    record, image, ids = make_samples(1)[0]
    with pytest.raises(DataError, match=r"day/0\.jpg: prediction and .* must have one size"):
        evaluate(perfect_prediction, [(record, image, ids[:-1])], TABLE)
    void = [(dataclasses.replace(record, segments=()), image, np.zeros_like(ids))]
    with pytest.raises(DataError, match="must hold a segment"):
        evaluate(perfect_prediction, void, TABLE)


def without_time(results):
    return {key: value for key, value in results.items() if key != "seconds_per_image"}


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_segments_info_of_nothing():
    assert segments_info(empty_outputs()) == []
