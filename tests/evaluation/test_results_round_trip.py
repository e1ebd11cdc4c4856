"""What evaluation and prediction write of a result is what the readers of results make of it."""

import json
import pathlib
import tempfile
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.evaluation.cityscapes_results import (
    read_instance_results,
    write_cityscapes,
)
from tf_panoptic_fpn.evaluation.instance_files import read_ground_truth, read_results
from tf_panoptic_fpn.evaluation.result_files import ResultFiles
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.cityscapes import CATEGORIES as CITYSCAPES
from tf_panoptic_fpn.formats.coco_panoptic import panoptic_annotations
from tf_panoptic_fpn.formats.images import read_label_map
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.formats.records import ImageRecord
from tf_panoptic_fpn.inference.files import predict_files
from tf_panoptic_fpn.masks.segment_map import tight_boxes
from tf_panoptic_fpn.media.sources import Input
from tf_panoptic_fpn.results.result import Result

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
examples = settings(max_examples=15, deadline=None)
TABLE = CategoryTable(
    (Category(300, "漢\n😀", True, (1, 2, 3)), Category(7, "road", False), Category(0, "a", True))
)
TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=5
)
IDS = st.integers(-(1 << 40), 1 << 40) | st.sampled_from(["\\", "a/b", "./", ".."]) | TEXTS
SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
SCORES = st.floats(0, 1)


@st.composite
def results(draw, table=TABLE, size=None):
    """A `Result` of segments 1..N, all of which occur, with detections that may overlap."""
    size = draw(SIZES) if size is None else size
    values = draw(arrays.arrays(np.int32, size, elements=st.integers(0, 3)))
    found = [i for i in np.unique(values).tolist() if i]
    panoptic_map = np.searchsorted(np.array([0, *found]), values).astype(np.int32)
    segments = []
    for number, (box, area) in enumerate(
        zip(*tight_boxes(panoptic_map, range(1, len(found) + 1)), strict=True), 1
    ):
        y1, x1, y2, x2 = box.tolist()
        category = draw(st.sampled_from(table.categories))
        segment = {"id": number, "category_id": category.id, "area": int(area)}
        segment["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        segments.append(segment | ({"score": draw(SCORES)} if category.is_thing else {}))
    instances = []
    for _ in range(draw(st.integers(0, 3))):
        mask = draw(arrays.arrays(np.uint8, size, elements=st.integers(0, 1)))
        rle = coco_mask.encode(np.asfortranarray(mask))
        rle["counts"] = rle["counts"].decode()
        instance = {"category_id": draw(st.sampled_from(table.things)).id, "score": draw(SCORES)}
        instances.append({**instance, "bbox": [0.0, 0.5, 1.0, 2.0], "segmentation": rle})
    classes = st.integers(0, len(table.stuff))
    return Result(
        panoptic_map,
        segments,
        table,
        semantic_map=draw(arrays.arrays(np.int32, size, elements=classes)),
        detections={schema.BOXES: draw(arrays.arrays(np.float32, (2, 4), elements=st.just(0.5)))},
        instances=instances,
    )


def check_coco(folder, ids, expected):
    """Reads `panoptic.json` and `instances.json` with the readers of the metrics."""
    tree = json.loads((folder / "panoptic.json").read_text(encoding="utf-8"))
    assert CategoryTable.load(folder / "panoptic.json") == TABLE
    annotations = panoptic_annotations(folder / "panoptic.json", TABLE, Breaches())
    found = {annotation.image_id: annotation for annotation in annotations}
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    assert list(found) == list(sizes) == ids
    for image_id, result in zip(ids, expected, strict=True):
        annotation = found[image_id]
        assert annotation.entry["segments_info"] == result.segments
        assert [(s.id, s.category_id, s.area, list(s.bbox_xywh)) for s in annotation.segments] == [
            (s["id"], s["category_id"], s["area"], s["bbox"]) for s in result.segments
        ]
        panoptic_map = read_panoptic_png(folder / "panoptic" / annotation.file_name)
        np.testing.assert_array_equal(panoptic_map, result.panoptic_map)
        assert sizes[image_id] == panoptic_map.shape
    truth = {"images": tree["images"], "annotations": [], "categories": TABLE.to_coco()}
    (folder / "truth.json").write_text(json.dumps(truth))
    truth = read_ground_truth(folder / "truth.json", needs_masks=True)
    read = read_results(folder / "instances.json", truth, needs_masks=True)
    for entry in read:
        entry["segmentation"] = {
            "size": list(entry["segmentation"]["size"]),
            "counts": entry["segmentation"]["counts"].decode(),
        }
    assert read == [
        {"image_id": image_id, **instance}
        for image_id, result in zip(ids, expected, strict=True)
        for instance in result.instances
    ]


@examples
@given(
    st.lists(st.tuples(IDS, results()), unique_by=lambda pair: str(pair[0]), min_size=1, max_size=3)
)
def test_the_files_of_an_evaluation(pairs):
    identity = {"model": "x", "sizes": (1, 2)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "image").touch()
        ids, expected = [i for i, _ in pairs], [result for _, result in pairs]
        records = [
            ImageRecord(i, file_name, str(folder / "image"), "", *result.panoptic_map.shape)
            for file_name, (i, result) in zip(("a/b.png", "a_b.png", "c.png"), pairs, strict=False)
        ]
        with ResultFiles(folder / "out", TABLE, identity, keeps_detections=True) as files:
            for record, result in zip(records, expected, strict=True):
                result.file_name = record.file_name
                stem = files.unique_stem(record)
                files.write(stem, result)
                files.append(record, stem, result, 0.5)
            files.write_coco()
        check_coco(folder / "out", ids, expected)
        with ResultFiles(folder / "out", TABLE, identity, keeps_detections=True) as files:
            for record, result in zip(records, expected, strict=True):
                again = files.read(files.finished(record))
                np.testing.assert_array_equal(again.panoptic_map, result.panoptic_map)
                np.testing.assert_array_equal(again.semantic_map, result.semantic_map)
                np.testing.assert_array_equal(
                    again.detections[schema.BOXES], result.detections[schema.BOXES]
                )
                assert again.segments == result.segments
                assert again.file_name == result.file_name
                kept = [{k: v for k, v in i.items() if k != "image_id"} for i in again.instances]
                assert kept == result.instances


@examples
@given(st.lists(results(size=(2, 3)), min_size=1, max_size=3))
def test_the_files_of_predictions(expected):
    waiting = iter(expected)
    predictor = types.SimpleNamespace(
        categories=TABLE,
        pixel_range=(0, 65535),
        predict_batch=lambda images: [next(waiting) for _ in images],
    )
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        inputs = []
        for number in range(len(expected)):
            path = folder / f"{number}.png"
            Image.new("RGB", (3, 2)).save(path)
            inputs.append(Input(path, path.name, f"a/{number}"))
        predict_files(predictor, inputs, folder / "out", write=("png", "json", "coco"))
        check_coco(folder / "out", list(range(1, len(expected) + 1)), expected)
        for number, result in enumerate(expected):
            tree = json.loads((folder / f"out/a/{number}.json").read_text())
            assert tree["segments_info"] == result.segments
            again = read_panoptic_png(folder / f"out/a/{number}_panoptic.png")
            np.testing.assert_array_equal(again, result.panoptic_map)


@examples
@given(results(CITYSCAPES))
def test_results_of_cityscapes(result):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_cityscapes(folder, "ulm/ulm_0_1_leftImg8bit.png", result, CITYSCAPES)
        path = folder / "instances/ulm_0_1_pred.txt"
        read = list(read_instance_results(path, folder))
        labels = read_label_map(folder / "semantic/ulm_0_1_pred_labelIds.png")
    assert [(label_id, score) for _, label_id, score in read] == [
        (i["category_id"], i["score"]) for i in result.instances
    ]
    for (mask, *_), instance in zip(read, result.instances, strict=True):
        np.testing.assert_array_equal(mask, coco_mask.decode(instance["segmentation"]))
    by_id = {0: 0, **{s["id"]: s["category_id"] for s in result.segments}}
    stuff = np.array([0, *CITYSCAPES.stuff_ids])[result.semantic_map]
    things = np.vectorize(by_id.get, otypes=[int])(result.panoptic_map)
    np.testing.assert_array_equal(labels, np.where(stuff > 0, stuff, things))
