"""A result as other tools take it, by hand: a square, a mask with a hole, two parts."""

import base64
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from regions_predictor import CATEGORIES as REGIONS
from regions_predictor import Regions, drawn

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.convert.labelme import read_labelme
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.inference.files import predict_files
from tf_panoptic_fpn.masks.segment_map import tight_boxes
from tf_panoptic_fpn.media.sources import find_inputs
from tf_panoptic_fpn.results.result import Result

CATEGORIES = CategoryTable(
    (Category(3, "cat", True), Category(5, "dog", True), Category(9, "grass", False))
)
# 1 a square, 2 two parts, 3 with a hole, in which is void.
ROWS = ("33333300", "31103302", "31103302", "33333322", "22000000")
MAP = np.array([[int(character) for character in row] for row in ROWS])


def result_of(panoptic_map, category_ids, **kwargs):
    boxes, areas = tight_boxes(panoptic_map, np.arange(1, len(category_ids) + 1))
    segments = []
    for number, category_id in enumerate(category_ids):
        y1, x1, y2, x2 = boxes[number].tolist()
        segment = {"id": number + 1, "category_id": category_id, "area": int(areas[number])}
        segment["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if category_id != 9:
            segment["score"] = 0.75
        segments.append(segment)
    return Result(panoptic_map.astype(np.int32), segments, CATEGORIES, **kwargs)


@pytest.fixture
def result():
    return result_of(MAP, [3, 5, 9], file_name="pets.jpg")


def corners(ring):
    """The corners of a ring, whichever comes first, in its direction."""
    ring = [tuple(point) for point in ring]
    start = ring.index(min(ring))
    return ring[start:] + ring[:start]


def test_detections_of_supervision(result):
    detections = result.to_supervision()
    assert detections.xyxy.tolist() == [[1, 1, 3, 3], [0, 1, 8, 5], [0, 0, 6, 4]]
    np.testing.assert_array_equal(detections.mask, [MAP == 1, MAP == 2, MAP == 3])
    assert detections.confidence.tolist() == [0.75, 0.75, 1]
    assert detections.class_id.tolist() == [3, 5, 9]
    assert detections["class_name"].tolist() == ["cat", "dog", "grass"]
    assert detections[detections["is_thing"]].area.tolist() == [4, 6]
    assert len(result_of(0 * MAP, []).to_supervision()) == 0


def test_without_supervision(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ConfigError, match=r"pip install 'tf-panoptic-fpn\[supervision\]'"):
        result.to_supervision()


def test_shapes_of_labelme(result):
    document = result.to_labelme("../pets.jpg")
    assert (document["imagePath"], document["imageData"]) == ("../pets.jpg", None)
    assert (document["imageHeight"], document["imageWidth"]) == (5, 8)
    square, *parts, hole = document["shapes"]
    assert (square["label"], square["shape_type"], square["score"]) == ("cat", "polygon", 0.75)
    assert square["group_id"] is None
    assert corners(square["points"]) == [(1, 1), (3, 1), (3, 3), (1, 3)]
    assert [(part["label"], part["group_id"]) for part in parts] == [("dog", 2), ("dog", 2)]
    assert corners(parts[1]["points"]) == [(0, 4), (2, 4), (2, 5), (0, 5)]
    assert (hole["label"], hole["shape_type"], "score" in hole) == ("grass", "mask", False)
    assert hole["points"] == [[0, 0], [5, 3]]  # the last pixel, as LabelMe has it
    with Image.open(io.BytesIO(base64.b64decode(hole["mask"]))) as mask:
        np.testing.assert_array_equal(np.asarray(mask), MAP[:4, :6] == 3)


@settings(max_examples=40, deadline=None)
@given(arrays(np.int32, (7, 9), elements=st.integers(0, 3)))
def test_what_labelme_is_given_reads_back_as_it_was(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("labelme")
    present = np.unique(ids[ids > 0])
    ids = np.searchsorted(present, ids) * (ids > 0) + (ids > 0)
    result = result_of(
        ids, [(3, 5, 9)[k - 1] for k in present], image=np.zeros((7, 9, 3), np.uint8)
    )
    if not len(present):
        return
    document = result.to_labelme(tolerance=0)
    (folder / "image.json").write_text(json.dumps(document), encoding="utf-8")
    (image,) = read_labelme(folder, CATEGORIES).images
    drawing = image.draw((7, 9), CATEGORIES)
    assert not drawing.left_out
    expected = [(s["category_id"], (ids == s["id"]).tobytes()) for s in result.segments]
    found = drawing.segments.items()
    received = [(category_id, (drawing.ids == k).tobytes()) for k, (category_id, _) in found]
    assert sorted(received) == sorted(expected)


def test_an_image_lies_in_the_file_where_it_has_no_path(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    result = result_of(MAP, [3, 5, 9], image=image, file_name="clip.mp4/000007")
    document = result.to_labelme()
    assert document["imagePath"] == "000007.png"
    with Image.open(io.BytesIO(base64.b64decode(document["imageData"]))) as stored:
        np.testing.assert_array_equal(np.asarray(stored), image)
    with pytest.raises(DataError, match="must hold its image, or `image_path` be given"):
        result_of(MAP, [3, 5, 9]).to_labelme()


def test_a_labelme_file_beside_the_results_names_the_image(tmp_path, result):
    (tmp_path / "in").mkdir()
    result.save(tmp_path / "out", "deep/pets", ("labelme",), tmp_path / "in/pets.jpg")
    path = tmp_path / "out/labelme/deep/pets.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["imagePath"] == "../../../in/pets.jpg"


def test_features_of_geojson_in_pixels(result):
    tree = result.to_geojson()
    square, parts, hole = tree["features"]
    assert tree["type"] == "FeatureCollection"
    assert [feature["id"] for feature in tree["features"]] == [1, 2, 3]
    assert square["properties"] == {
        "category_id": 3,
        "category": "cat",
        "is_thing": True,
        "area_pixels": 4,
        "score": 0.75,
    }
    assert hole["properties"]["is_thing"] is False
    assert "score" not in hole["properties"]
    assert square["geometry"]["type"] == hole["geometry"]["type"] == "Polygon"
    (ring,) = square["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert corners(ring[:-1]) == [(1, 1), (3, 1), (3, 3), (1, 3)]
    assert parts["geometry"]["type"] == "MultiPolygon"
    assert [[len(ring) for ring in polygon] for polygon in parts["geometry"]["coordinates"]] == [
        [7],
        [5],
    ]
    outer, inner = hole["geometry"]["coordinates"]
    assert corners(outer[:-1]) == [(0, 0), (6, 0), (6, 4), (0, 4)]
    assert corners(inner[:-1]) == [(1, 1), (1, 3), (4, 3), (4, 1)]


@pytest.mark.parametrize("length", [6, 9])
def test_a_transform_places_pixels_on_the_map(result, length):
    """Half a metre a pixel, north is up: x = 4000 + column / 2, y = 9000 - row / 2."""
    transform = (0.5, 0, 4000, 0, -0.5, 9000, 0, 0, 1)[:length]
    square, _, hole = result.to_geojson(transform)["features"]
    (ring,) = square["geometry"]["coordinates"]
    expected = [(4000.5, 8998.5), (4001.5, 8998.5), (4001.5, 8999.5), (4000.5, 8999.5)]
    assert corners(ring[:-1]) == expected  # counterclockwise
    outer, inner = hole["geometry"]["coordinates"]
    assert [signed_area(outer), signed_area(inner)] == [24 / 4, -6 / 4]


def test_a_turned_transform(result):
    """x = row, y = 10 + 2 column."""
    square = result.to_geojson((0, 1, 0, 2, 0, 10))["features"][0]
    (ring,) = square["geometry"]["coordinates"]
    assert corners(ring[:-1]) == [(1, 12), (3, 12), (3, 16), (1, 16)]
    with pytest.raises(DataError, match=r"must be 6 numbers.*: 4"):
        result.to_geojson((1, 0, 0, 1))


def test_predict_writes_labelme_files_that_find_their_images(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    Image.fromarray(drawn((30, 40), 3)).save(tmp_path / "in/deep/a.png")
    out = tmp_path / "out"
    predict_files(Regions(), find_inputs([tmp_path / "in"], out), out, write=("labelme",))
    source = read_labelme(out / "labelme", REGIONS)
    (image,) = source.images
    path = os.path.normpath(os.path.join(source.images_dir, image.file_name))
    assert path == str(tmp_path / "in/deep/a.png")
    drawing = image.draw((30, 40), REGIONS)
    whole = Regions()(path)
    areas = {s["id"]: s["area"] for s in whole.segments}
    assert len(drawing.segments) == len(areas)
    assert abs((drawing.ids > 0).sum() - sum(areas.values())) < 40


def signed_area(ring):
    (x, y), (next_x, next_y) = np.array(ring[:-1]).T, np.array(ring[1:]).T
    return float(np.sum(x * next_y - next_x * y)) / 2
