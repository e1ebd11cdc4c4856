"""16-bit images of which a part of the range is used: reading, training, evaluation, serving."""

import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.data.decode import decode_image, decode_served_image
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.loading import ImageLoader
from tf_panoptic_fpn.data.splits import load_index, load_split
from tf_panoptic_fpn.datatools.validate.files import check_image
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.images import read_image, used_range
from tf_panoptic_fpn.formats.records import load_segments
from tf_panoptic_fpn.inference.files import _read_images

TWELVE_BITS = (0, 4095)
VALUES = np.array([[0, 15, 16, 17], [257, 2048, 4095, 60000]], np.uint16)
# 16 * 255 / 4095 = 0.996, 17 * 255 / 4095 = 1.06, 257: 16.004, 2048: 127.5.
SCALED = [[0, 0, 0, 1], [16, 127, 255, 255]]
# v / 257: 17 / 257 = 0.07, 257: 1, 2048: 7.97, 4095: 15.9, 60000: 233.5.
FULL = [[0, 0, 0, 0], [1, 7, 15, 233]]
# 2048: (2048 - 16) * 255 / 4079 = 127.03; 17: 0.06; 257: 15.07.
OFFSET = [[0, 0, 0, 0], [15, 127, 255, 255]]
RANGES = [(TWELVE_BITS, SCALED), ((0, 65535), FULL), ((16, 4095), OFFSET)]


@pytest.fixture(params=["png", "tif"])
def path(request, tmp_path):
    Image.fromarray(VALUES).save(tmp_path / f"a.{request.param}")
    return tmp_path / f"a.{request.param}"


@pytest.mark.parametrize(("pixel_range", "expected"), RANGES)
def test_the_range_becomes_8_bits(path, pixel_range, expected):
    image = read_image(path, pixel_range)
    assert image.dtype == np.uint8
    assert [image[..., channel].tolist() for channel in range(3)] == [expected] * 3
    decoded = decode_image(path.read_bytes(), 1, True, pixel_range)
    np.testing.assert_array_equal(decoded, image)
    if path.suffix == ".png":
        served = tf.function(lambda data: decode_served_image(data, pixel_range))
        np.testing.assert_array_equal(served(path.read_bytes()), image)


def test_by_default_it_is_all_16_bits(path):
    assert read_image(path)[..., 0].tolist() == FULL
    assert used_range(path) == (0, 60000)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_images_of_8_bits_are_not_scaled(tmp_path, mode, kind):
    if kind == "jpg" and "A" in mode:
        pytest.skip("JPEG has no alpha")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    path = tmp_path / f"a.{kind}"
    Image.fromarray(pixels).convert(mode).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(read_image(path, TWELVE_BITS), image)
    np.testing.assert_array_equal(decode_served_image(path.read_bytes(), TWELVE_BITS), image)
    assert used_range(path) is None


@pytest.fixture
def config(tmp_path):
    """Two 12-bit images with an instance, and the configuration of a run on them."""
    ramp = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) % 4096
    for name in ("a.tif", "b.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
    square = [8, 10, 32, 10, 32, 34, 8, 34]
    tree = {
        "images": [
            {"id": i, "file_name": name, "height": 64, "width": 96}
            for i, name in enumerate(("a.tif", "b.tif"))
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "segmentation": [square]}
            for i in range(2)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(tree))
    split = "{format: coco_instances, images: ., instances_json: a.json}"
    text = (
        "model: {num_thing_classes: 1, num_stuff_classes: 0, tasks: [instance]}\n"
        f"data: {{root: {tmp_path}, pixel_range: [0, 4095], train: {split}, validation: {split}}}"
    )
    (tmp_path / "c.yaml").write_text(text)
    return tmp_path / "c.yaml"


def test_training_and_evaluation_read_alike(config):
    data = load_config(config).data
    expected = np.repeat(
        (np.arange(64 * 96).reshape(64, 96) % 4096 * 255 // 4095)[..., None], 3, axis=-1
    )
    split = load_split(data, "validation")
    np.testing.assert_array_equal(load_segments(split.images[1])[0], expected)
    index = load_index(data, "train")
    loader = ImageLoader(index, FolderSource(index), data.pixel_range)
    loaded = loader.load(tf.constant(1), tf.constant(False))
    np.testing.assert_array_equal(loaded["image"], expected)


def test_prediction_reads_as_the_predictor_says(config):
    path = config.parent / "a.tif"
    entry = types.SimpleNamespace(path=path, file_name="a.tif", stem="a")
    for pixel_range, highest in ((TWELVE_BITS, 255), ((0, 65535), 15)):
        (picture,) = _read_images([entry], pixel_range, iter([1]), [])
        assert picture.image.max() == highest


@pytest.mark.parametrize("value", ["[0]", "[4095, 0]", "[0, 65536]", "[-1, 9]", "[5, 5]"])
def test_a_range_is_two_ascending_values_of_16_bits(config, value):
    with pytest.raises(ConfigError, match=r"pixel_range"):
        load_config(config, [f"data.pixel_range={value}"])


@pytest.mark.parametrize(
    ("highest", "bits", "advice"),
    [(4012, 12, 4095), (4095, 12, 4095), (4096, 13, 8191), (16383, 14, 16383), (200, 8, 255)],
)
def test_a_small_part_of_the_range_is_warned_about(tmp_path, highest, bits, advice):
    path = pathlib.Path(tmp_path, "a.tif")
    Image.fromarray(np.array([[17, highest]], np.uint16)).save(path)
    breaches, _, _ = check_image(path, (1, 2))
    assert dict(breaches)["pixel_range"] == (
        f"values 17..{highest} of 0..65535, {bits} bits: `data.pixel_range: [0, {advice}]`"
    )
    Image.fromarray(np.array([[17, 16384]], np.uint16)).save(path)
    assert "pixel_range" not in dict(check_image(path, (1, 2))[0])
