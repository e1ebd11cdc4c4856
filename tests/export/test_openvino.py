"""The OpenVINO model does what the predictor does."""

import numpy as np
import pytest
import tensorflow as tf
from small_predictor import TABLE, make_images, make_predictor
from test_onnx import assert_same, run_eagerly

pytest.importorskip("openvino")

from tf_panoptic_fpn.data.pillow_resize import resize_images
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.openvino_model import write_openvino
from tf_panoptic_fpn.formats.images import resized_size
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.inference.model_source import OPENVINO, find_model
from tf_panoptic_fpn.inference.openvino_runtime import COMPILED, OpenvinoPredictor
from tf_panoptic_fpn.onnx_graph.graph import Graph
from tf_panoptic_fpn.onnx_graph.merge import network_size, resize_image

pytestmark = pytest.mark.usefixtures("short_backbones")


@pytest.mark.slow
def test_equals_the_predictor(tmp_path, monkeypatch):
    """Images that are not resized, alone and in a batch; and it is a model like others."""
    predictor = make_predictor()
    monkeypatch.setattr(predictor, "run", lambda images: run_eagerly(predictor, images))
    path = tmp_path / "model.xml"
    write_openvino(predictor, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    source = find_model(path)
    assert source.kind == OPENVINO
    assert source.known_categories().categories == TABLE.categories
    exported = load_predictor(path)
    assert isinstance(exported, OpenvinoPredictor)
    assert exported.merge == predictor.merge
    for count, size in ((1, (64, 100)), (3, (90, 64)), (1, (64, 64))):
        images = make_images(count, size)
        expected = run_eagerly(predictor, images)
        for pair in zip(expected, exported.run(images), strict=True):
            assert_same(*pair)
    with pytest.raises(ConfigError, match="an OpenVINO model takes no --config"):
        load_predictor(path, config="some.yaml")


def test_images_are_resized_to_the_same_levels(tmp_path):
    """Without float64, which OpenVINO has not; and to the same sizes."""
    import openvino

    g = Graph()
    images, size = g.input("images", "uint8", [None] * 4), g.input("size", "int64", [2])
    original = g.op("Shape", images, start=1, end=3)
    g.output(resize_image(g, images, size), "resized", "float32", [None] * 4)
    g.output(network_size(g, original, 800, 1333), "network_size", "int64", [2])
    (tmp_path / "resize.onnx").write_bytes(g.model("test", {}).SerializeToString())
    compiled = openvino.Core().compile_model(tmp_path / "resize.onnx", "CPU", COMPILED)
    for sides, new in (((97, 131), (64, 86)), ((427, 64), (800, 120)), ((1500, 11), (333, 3))):
        pixels = np.random.default_rng(0).integers(0, 256, (1, *sides, 3)).astype(np.uint8)
        resized, chosen = compiled([pixels, np.int64(new)]).values()
        expected = resize_images(tf.constant(pixels), tf.constant(new)).numpy()
        np.testing.assert_array_equal(resized.transpose(0, 2, 3, 1), expected)
        assert tuple(chosen) == resized_size(*sides, 800, 1333)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.xml"
    with pytest.raises(ConfigError, match=r"model\.xml: no such file"):
        OpenvinoPredictor(path)
    path.write_text("<net", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.xml: cannot be loaded"):
        find_model(path).known_categories()
