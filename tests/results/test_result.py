"""What a prediction is, from three kinds of pictures to its files, by hand."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from threshold_predictor import CATEGORIES, Threshold, picture

from tf_panoptic_fpn.errors import DamagedFileError, DataError
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.visualize import draw_panoptic


@pytest.fixture
def street(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(picture()).save(path)
    return path


def test_a_path_a_picture_and_an_array_give_the_same(street):
    predictor = Threshold()
    with Image.open(street) as image:
        results = predictor([street, str(street), image, picture()])
    assert [result.file_name for result in results] == ["street.png"] * 3 + [""]
    for result in results:
        np.testing.assert_array_equal(result.image, picture())
        np.testing.assert_array_equal(
            result.panoptic_map, np.repeat([1, 2], 24)[:, None] + 0 * result.panoptic_map
        )
        assert result.segments == [
            {"id": 1, "category_id": 7, "area": 24 * 64, "bbox": [0, 0, 64, 24], "score": 0.75},
            {"id": 2, "category_id": 9, "area": 24 * 64, "bbox": [0, 24, 64, 24]},
        ]
    assert repr(results[0]) == "<Result: street.png, 64x48, 1 bright, 1 dark>"


def test_a_picture_is_turned_upright_and_becomes_rgb():
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: turned clockwise by 90 degrees
    file = io.BytesIO()
    Image.fromarray(picture()[..., 0]).save(file, "PNG", exif=exif)
    result = Threshold()(Image.open(file))
    assert result.image.shape == (64, 48, 3)
    assert (result.panoptic_map[:, 24:] == 1).all()  # what was above is right


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8), np.zeros((0, 6, 3), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(DataError, match=r"path, a PIL image or a uint8 array \[H, W, 3\]\. Rec"):
        Threshold()(image)


def test_a_damaged_picture_is_an_error_of_one_line(street):
    street.write_bytes(street.read_bytes()[:60])
    with pytest.raises(DamagedFileError, match=r"street\.png: .*decoded"):
        Threshold()(street)


def test_files_of_one_result(street, tmp_path):
    result = Threshold()(street)
    result.save(tmp_path / "out")
    names = ["street.json", "street_overlay.png", "street_panoptic.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    ids = read_panoptic_png(tmp_path / "out" / "street_panoptic.png")
    np.testing.assert_array_equal(ids, result.panoptic_map)
    document = json.loads((tmp_path / "out" / "street.json").read_text(encoding="utf-8"))
    assert document["segments_info"] == result.segments
    drawn = draw_panoptic(picture(), ids, result.segments, CATEGORIES)
    np.testing.assert_array_equal(np.asarray(result.draw()), drawn)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(result._repr_png_()))), drawn)


def test_entries_of_cocos_files(street):
    entries = Threshold()(street).to_coco(image_id=5)
    assert entries["image"] == {"id": 5, "file_name": "street.png", "height": 48, "width": 64}
    assert entries["annotation"]["file_name"] == "street.png"
    (instance,) = entries["instances"]
    assert (instance["image_id"], instance["category_id"], instance["score"]) == (5, 7, 0.75)
    assert instance["bbox"] == [0, 0, 64, 24]
    mask = mask_api.decode(instance["segmentation"])
    assert mask[:24].all()
    assert not mask[24:].any()


def test_without_its_image_nothing_is_drawn():
    result = Result(np.zeros((2, 3), np.int32), [], CATEGORIES)
    assert result.instances is None
    assert result._repr_png_() is None
    assert repr(result) == "<Result: 3x2, nothing found>"
    with pytest.raises(DataError, match="must hold its image to be drawn"):
        result.draw()
