"""The ONNX file does what the predictor does."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import run
from small_predictor import DETECTIONS, SPLIT, TABLE, make_images, make_predictor

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.inference.load_predictor import load_predictor, predictor_of
from tf_panoptic_fpn.inference.merge import Merger
from tf_panoptic_fpn.inference.model_source import ONNX, find_model
from tf_panoptic_fpn.inference.served_outputs import by_image

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tf_panoptic_fpn.export import onnx_file  # noqa: E402
from tf_panoptic_fpn.export.onnx_file import check_held, export_onnx, write_onnx  # noqa: E402
from tf_panoptic_fpn.export.saved_model import weights_hash  # noqa: E402
from tf_panoptic_fpn.inference.onnx_runtime import OnnxPredictor, open_session  # noqa: E402
from tf_panoptic_fpn.onnx_graph.model import build_graph  # noqa: E402

pytestmark = pytest.mark.usefixtures("short_backbones")


def run_eagerly(predictor, images):
    """`Predictor.run` without a trace."""
    outputs = tf.nest.map_structure(np.asarray, predictor.predict_images(tf.constant(images)))
    return [
        tf.nest.map_structure(lambda value, row=row: value[row], outputs)
        for row in range(len(images))
    ]


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


@pytest.fixture(scope="module")
def file(predictor, tmp_path_factory):
    """The exported file; that it is checked is a test of its own."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "check_same_results", lambda *_: None)
        write_onnx(predictor, path)
    return path


@pytest.fixture(scope="module")
def exported(file):
    return OnnxPredictor(file)


def assert_same(expected, received):
    for name in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP):
        if name in expected:
            assert (expected[name] != received[name]).sum() <= 10, name
    for name in (schema.CATEGORY_IDS, schema.IS_THING, schema.NUM_SEGMENTS):
        np.testing.assert_array_equal(expected[name], received[name])
    np.testing.assert_allclose(expected[schema.SCORES], received[schema.SCORES], atol=1e-4)
    assert set(expected) == set(received)
    if schema.INSTANCES not in expected:
        return
    ours, theirs = expected[schema.INSTANCES], received[schema.INSTANCES]
    count = int(ours[schema.NUM_DETECTIONS])
    for name in (schema.CLASSES, schema.NUM_DETECTIONS):
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_allclose(ours[schema.SCORES], theirs[schema.SCORES], atol=1e-4)
    np.testing.assert_allclose(ours[schema.BOXES], theirs[schema.BOXES], atol=0.02)
    masks = (values[schema.MASK_PROBS][:count] for values in (ours, theirs))
    np.testing.assert_allclose(*masks, atol=1e-3)


def assert_rich(results):
    """Things and stuff are found, and some instance is dropped."""
    for result in results:
        segments = int(result[schema.NUM_SEGMENTS])
        assert 3 < result[schema.IS_THING].sum() < min(segments, DETECTIONS)


@pytest.mark.parametrize(("count", "size"), [(1, (97, 131)), (3, (80, 50))])
def test_equals_the_predictor(predictor, exported, count, size):
    """Reduced and enlarged, alone and in a batch; the network's canvas is padded."""
    images = make_images(count, size)
    expected = run_eagerly(predictor, images)
    assert_rich(expected)
    for pair in zip(expected, exported.run(images), strict=True):
        assert_same(*pair)


BACKBONES = {
    "bottlenecks": {"depth": 50, "norm": "frozen_affine"},
    "bottlenecks that stride in 3x3": {
        "depth": 50,
        "norm": "sync_batch_norm",
        "stride_in_1x1": False,
    },
    "ResNeXt": {"depth": 50, "norm": "group_norm", "groups": 4, "group_width": 8},
}
VARIANTS = {
    "semantic": {"tasks": ("semantic",)},
    "instance": {"tasks": ("instance",)},
    "all": {"semantic_things": "all", "semantic_fuse": "concat"},
    "two_conv": {"semantic_design": "two_conv", "score_threshold": 0.999},  # nothing is found
    "sampling": {"roi_sampling_ratio": 2, "anchor_ratios": (0.5, 1.0), "nms_iou": 0.3},
    "deviations": {"pixel_std": (58.0, 57.0, 56.0), "max_detections": 120, "rpn_nms_iou": 0.5},
    "mixed_bfloat16": {"dtype": "mixed_bfloat16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BACKBONES, *VARIANTS])
def test_equals_every_variant(name, tmp_path):
    changes = dict(VARIANTS.get(name, {}))
    if name in BACKBONES:
        options = {"stem_channels": 32, "width": 32, **BACKBONES[name]}
        changes["backbone"] = ResNet(**options, name="backbone")
    predictor = onnx_file.in_float32(make_predictor(**changes))
    rng = np.random.default_rng(0)
    for weight in predictor.model.backbone.weights:  # statistics and scales that are not 0 and 1
        if len(weight.shape) == 1:
            weight.assign(weight + rng.uniform(0, 0.3, weight.shape))
    path = tmp_path / "model.onnx"
    path.write_bytes(build_graph(predictor).model("test", {}).SerializeToString())
    session = open_session(path)
    images = make_images(2, (90, 71))
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"images": images}), strict=True))
    received = by_image(outputs, TABLE.thing_class, path)
    for pair in zip(run_eagerly(predictor, images), received, strict=True):
        assert_same(*pair)


@pytest.mark.slow
def test_two_groups_of_channels(tmp_path):
    """Where TensorFlow runs a grouped convolution with bias."""
    predictor = make_predictor(fpn_groups=2)
    path = tmp_path / "model.onnx"
    path.write_bytes(build_graph(predictor).model("test", {}).SerializeToString())
    images = make_images(1, (64, 96))
    (outputs,) = open_session(path).run(["detection_scores"], {"images": images})
    (expected,) = run_eagerly(predictor, images)
    np.testing.assert_allclose(outputs[0], expected[schema.INSTANCES][schema.SCORES], atol=1e-4)


@pytest.mark.slow
def test_8_bits(predictor, tmp_path, monkeypatch, capfd):
    """The weights are a quarter, and the results near; what it warns of is not shown."""
    monkeypatch.setattr(predictor, "run", lambda images: run_eagerly(predictor, images))
    path, images = tmp_path / "model.onnx", make_images(3, (97, 131))
    write_onnx(predictor, path)
    before = path.stat().st_size
    exact = OnnxPredictor(path).run(images)
    write_onnx(predictor, path, [*images])
    assert path.stat().st_size < 0.4 * before
    for expected, received in zip(exact, OnnxPredictor(path).run(images), strict=True):
        changed = expected[schema.SEMANTIC_MAP] != received[schema.SEMANTIC_MAP]
        assert 0 < changed.mean() < 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert capfd.readouterr() == ("", "")


def test_thresholds_may_be_given(predictor, file):
    session = open_session(file)
    images = make_images(1, (97, 131))
    given = {"score_threshold": 0.5, "overlap_threshold": 0.1, "stuff_area": 2500}
    merge = MergeConfig(**given)
    feeds = {
        **{name: np.array(value, np.float32) for name, value in given.items()},
        "stuff_area": np.array(2500, np.int32),
        "images": images,
    }
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, feeds), strict=True))
    (received,) = by_image(outputs, TABLE.thing_class, file)
    merged = Merger(predictor.categories)(
        received[schema.INSTANCES], received[schema.SEMANTIC_MAP], (97, 131), merge
    )
    assert (merged[schema.PANOPTIC_MAP] == received[schema.PANOPTIC_MAP]).all()
    (by_default,) = OnnxPredictor(file).run(images)
    assert (by_default[schema.PANOPTIC_MAP] != received[schema.PANOPTIC_MAP]).any()


def test_the_file_tells_of_itself(predictor, file, exported):
    assert exported.categories == predictor.categories
    assert exported.merge == predictor.merge
    assert exported.pixel_range == predictor.pixel_range
    metadata = open_session(file).get_modelmeta().custom_metadata_map
    assert set(metadata) == {"categories", "settings", "config", "version", "weights_sha256"}
    assert json.loads(metadata["config"])["model"]["num_stuff_classes"] == 4
    assert json.loads(metadata["config"])["short_side"] == SPLIT.short_sides[0]
    assert len(metadata["weights_sha256"]) == 64
    assert metadata["weights_sha256"] == weights_hash(predictor.model)  # as a SavedModel's


PREDICT = """
import sys
sys.modules["keras"] = sys.modules["tensorflow"] = None  # an import of either fails
import numpy as np
from tf_panoptic_fpn.inference.onnx_runtime import OnnxPredictor
result = OnnxPredictor(sys.argv[1])(np.load(sys.argv[2]))
np.save(sys.argv[3], result.panoptic_map)
"""


def test_predicts_without_tensorflow(exported, file, tmp_path):
    image = make_images(1, (50, 60))[0]
    np.save(tmp_path / "image.npy", image)
    run("-c", PREDICT, file, tmp_path / "image.npy", tmp_path / "map.npy")
    assert (np.load(tmp_path / "map.npy") == exported(image).panoptic_map).all()


def test_is_a_model_like_others(file):
    source = find_model(file)
    assert source.kind == ONNX
    assert source.known_categories().categories == TABLE.categories
    assert isinstance(load_predictor(file), OnnxPredictor)
    with pytest.raises(ConfigError, match="an ONNX file takes no --config: all is in its graph"):
        predictor_of(find_model(file, config="some.yaml"))
    with pytest.raises(ConfigError, match="an ONNX file's merge is in its graph: no --tta"):
        load_predictor(file, tta=True)
    with pytest.raises(ConfigError, match="is exported already"):
        export_onnx(source, file)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match=r"model\.onnx: no such file"):
        OnnxPredictor(path)
    path.write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"model\.onnx: cannot be loaded"):
        find_model(path).known_categories()
    from tf_panoptic_fpn.onnx_graph.graph import Graph

    g = Graph()
    g.output(g.input("x", "float32", [1]), "y", "float32", [1])
    path.write_bytes(g.model("other", {}).SerializeToString())
    with pytest.raises(ConfigError, match=r"is not a file that `export` wrote"):
        OnnxPredictor(path)


def test_what_is_refused(predictor, tmp_path, monkeypatch):
    class Backbone(keras.layers.Layer):
        pass

    other = type("Model", (), {"config": predictor.model.config, "backbone": Backbone()})
    with pytest.raises(ConfigError, match=r"must be a ResNet, a .* Received: Backbone"):
        check_held(other)
    held = onnx_file.HELD
    monkeypatch.setattr(onnx_file, "HELD", held - {"box_head_units", "nms_iou"})
    with pytest.raises(ConfigError, match=r"`model.box_head_units` .* to ONNX. Received: 32"):
        check_held(predictor.model)  # and `nms_iou` has its default
    ratios = {**predictor.model.config, "nms_iou": 0.5, "anchor_ratios": [0.5, 1.0, 2.0]}
    monkeypatch.setattr(onnx_file, "HELD", held - {"anchor_ratios", "nms_iou"})
    from_file = {"config": ratios, "backbone": predictor.model.backbone}
    check_held(type("Model", (), from_file))  # a list, where the default is a tuple
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    source = find_model(tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match="--output must be given"):
        export_onnx(source)
    with pytest.raises(ConfigError, match=r"name ends in \.onnx\. Received: .*model\.pb"):
        export_onnx(source, tmp_path / "model.pb")


def test_a_file_that_differs_is_not_kept(predictor, exported, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    monkeypatch.setattr(predictor, "run", lambda images: run_eagerly(predictor, images))

    class Wrong(OnnxPredictor):
        key = ""

        def run(self, images):
            (result,) = super().run(images)
            return [{**result, self.key: np.zeros_like(result[self.key])}]

    monkeypatch.setattr(onnx_file, "OnnxPredictor", Wrong)
    for key in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP):
        monkeypatch.setattr(Wrong, "key", key)
        with pytest.raises(PanopticError, match=r"model\.onnx: what was exported differs"):
            write_onnx(predictor, path)
        assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
        assert path.read_bytes() == b"earlier"
    monkeypatch.setattr(onnx_file, "OnnxPredictor", OnnxPredictor)
    write_onnx(predictor, path)
    assert path.stat().st_size > 10_000


def test_without_the_packages(monkeypatch, file):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ConfigError, match=r"needs onnxruntime: pip install 'tf-panoptic-fpn\[onnx\]'"
    ):
        OnnxPredictor(file)
