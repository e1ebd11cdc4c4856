"""The OpenVINO model does what the predictor does."""

import pytest
from small_predictor import TABLE, make_images, make_predictor
from test_onnx import assert_same, run_eagerly

pytest.importorskip("openvino")

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.openvino_model import write_openvino
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.inference.model_source import OPENVINO, find_model
from tf_panoptic_fpn.inference.openvino_runtime import OpenvinoPredictor


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


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.xml"
    with pytest.raises(ConfigError, match=r"model\.xml: no such file"):
        OpenvinoPredictor(path)
    path.write_text("<net", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.xml: cannot be loaded"):
        find_model(path).known_categories()
