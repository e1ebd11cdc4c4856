"""The LiteRT file of the network."""

import numpy as np
import pytest
from small_model import make_tiny_model

pytest.importorskip("ai_edge_litert")

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.export import litert_model
from tf_panoptic_fpn.export.litert_model import export_litert, run_litert, write_litert
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.inference.predictor import Predictor

TABLE = CategoryTable(
    (Category(1, "cat", True), *(Category(k, str(k), False) for k in range(2, 6)))
)


@pytest.mark.slow
def test_the_network_gives_the_same(tmp_path, monkeypatch):
    """Of images that become 32x64; and a file that differs is not kept."""
    model = make_tiny_model(tasks=("semantic",))
    split = SplitConfig(short_sides=(32,), max_long_side=64)
    predictor = Predictor(model, TABLE, MergeConfig(), split)
    path = tmp_path / "model.tflite"
    write_litert(predictor, path, (40, 80))
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)
    outputs = run_litert(path.read_bytes(), images)
    sizes = np.array([[32, 64]], np.int32)
    expected = model({schema.IMAGES: images, schema.IMAGE_SIZES: sizes}, training=False)
    assert set(outputs) == {schema.SEMANTIC_LOGITS}
    logits = expected[schema.SEMANTIC_LOGITS].numpy()
    np.testing.assert_allclose(outputs[schema.SEMANTIC_LOGITS], logits, atol=1e-3)
    assert np.abs(logits).max() > 0.1
    before = path.read_bytes()
    wrong = {schema.SEMANTIC_LOGITS: logits + 1}
    monkeypatch.setattr(litert_model, "run_litert", lambda *_: wrong)
    monkeypatch.setattr(litert_model, "convert", lambda *_: b"")
    with pytest.raises(PanopticError, match="differs from the model: semantic_logits by"):
        write_litert(predictor, path, (40, 80))
    assert path.read_bytes() == before


def test_it_needs_one_size(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    source = find_model(tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match=r"`serve\.canvases` must have one size for LiteRT"):
        export_litert(source, tmp_path / "model.tflite")
    with pytest.raises(ConfigError, match=r"name ends in \.tflite"):
        export_litert(source, tmp_path / "model.lite")
