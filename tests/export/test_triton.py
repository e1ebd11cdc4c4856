"""The export for Triton: its files and its backend."""

import ast
import importlib
import pathlib
import sys
import types

import numpy as np
import pytest
from command_line import ROOT
from noise_png import png

from tf_panoptic_fpn.data.served_kinds import not_served
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.triton import config_text, export_triton
from tf_panoptic_fpn.export.triton_onnx import HELD, OnnxModel
from tf_panoptic_fpn.inference import model_source
from tf_panoptic_fpn.inference.model_source import ModelSource

pytestmark = pytest.mark.usefixtures("short_backbones")

MODEL = "panoptic_fpn"


def test_the_configuration_is_what_triton_reads():
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    outputs = {
        "panoptic_map": ("int32", [None, None, None]),
        "scores": ("float32", [None, 11]),
        "num_segments": ("int32", [None]),
        "panoptic_png_bytes": ("string", [None]),
    }
    inputs = {"image_bytes": ("string", [None]), "stuff_area": ("int32", [None])}
    outputs["error"] = ("string", [None])
    config = text_format.Parse(config_text(inputs, outputs), pb2.ModelConfig())
    assert [(i.name, i.optional) for i in config.input] == [
        ("image_bytes", False),
        ("stuff_area", True),
    ]
    assert len(config.output) == 4  # an error is no output
    assert (config.name, config.backend, config.max_batch_size) == (MODEL, "python", 8)
    dims = {output.name: list(output.dims) for output in config.output}
    assert dims["panoptic_map"] == [-1, -1] and dims["scores"] == [11]
    assert dims["num_segments"] == dims["panoptic_png_bytes"] == [1]
    types_of = {output.name: output.data_type for output in config.output}
    assert types_of["panoptic_png_bytes"] == pb2.TYPE_STRING
    policy = config.dynamic_batching.default_queue_policy
    assert policy.timeout_action == policy.REJECT
    assert (policy.default_timeout_microseconds, policy.max_queue_size) == (7_000_000, 64)
    assert list(config.dynamic_batching.preferred_batch_size) == [2]
    assert config.model_warmup[0].inputs["image_bytes"].input_data_file == "picture"


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    source = types.SimpleNamespace(name="x", workdir=None, kind="", path=None)
    with pytest.raises(ConfigError, match="holds something else than an export"):
        export_triton(source, tmp_path / "mine")
    with pytest.raises(ConfigError, match="--output must be given"):
        export_triton(source)


@pytest.fixture
def backend(monkeypatch):
    """`TritonPythonModel` with stand-ins for Triton's classes; a request is a dict."""

    def error(message, code):
        return code, message

    error.INVALID_ARG = "INVALID_ARG"
    fake = types.SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request.get(name),
        Tensor=lambda name, value: (name, value),
        InferenceResponse=lambda tensors=(), error=None: error or dict(tensors),
        TritonError=error,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    module = importlib.import_module("tf_panoptic_fpn.export.triton_backend")
    model = module.TritonPythonModel()
    model._defaults = {"stuff_area": np.int32(64)}
    yield model
    sys.modules.pop(module.__name__)


class Request(dict):
    def requested_output_names(self):
        return self["names"]


def request(*images, names=("panoptic_map", "image_size"), **thresholds):
    def tensor(values, dtype):
        return types.SimpleNamespace(as_numpy=lambda: np.array(values, dtype)[:, None])

    thresholds = {name: tensor(values, np.int32) for name, values in thresholds.items()}
    return Request(image_bytes=tensor(images, object), names=names, **thresholds)


def served(image_bytes, stuff_area):
    """An image is a digit: the sides of its map, which holds the threshold. Others are refused."""
    images = [image.decode() for image in image_bytes]
    sides = [int(image) if image.isdigit() else 0 for image in images]
    maps = np.zeros((len(images), max(sides), max(sides)), np.int32)
    for row, side in enumerate(sides):
        maps[row, :side, :side] = stuff_area[row]
    errors = ["" if image.isdigit() else f"{image} is no image" for image in images]
    return {
        "panoptic_map": maps,
        "image_size": np.array([[side, side] for side in sides]),
        "error": np.array([error.encode() for error in errors], object),
    }


def test_requests_are_run_together_and_answered_apart(backend):
    calls = []
    backend._serve = lambda **inputs: calls.append(len(inputs["image_bytes"])) or served(**inputs)
    answers = backend.execute(
        [
            request(b"2"),
            request(b"4", b"3", stuff_area=[7, 9]),
            request(b"5", b"x"),
            request(b"1", names=()),
            Request(names=(), stuff_area=request(b"1", stuff_area=[3])["stuff_area"]),
        ]
    )
    assert calls == [6]
    assert answers[0]["panoptic_map"].tolist() == [[[64, 64], [64, 64]]]
    assert answers[1]["panoptic_map"].shape == (2, 4, 4)
    assert answers[1]["panoptic_map"][1].sum() == 9 * 9
    assert answers[2] == ("INVALID_ARG", "image 1: x is no image")
    assert answers[3] == {}
    missing = ("INVALID_ARG", "a request must have images: the input image_bytes is missing")
    assert answers[4] == missing
    assert backend.execute([Request(names=())]) == [missing] and calls == [6]


def test_what_an_onnx_file_is_run_with_needs_no_more():
    """Of this package an export holds what its files import, and no framework is among that."""
    package = ROOT / "tf_panoptic_fpn"
    modules = {f"tf_panoptic_fpn.{name[:-3].replace('/', '.')}" for name in HELD}
    for name in HELD:
        for node in ast.walk(ast.parse((package / name).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for imported in names:
                ours = imported.startswith("tf_panoptic_fpn")
                assert imported in modules if ours else imported not in ("tensorflow", "keras")


def test_images_of_an_onnx_file_are_refused_by_name_and_padded():
    model = object.__new__(OnnxModel)
    model._max_pixels, model._pixel_range = 2000, (0, 65535)
    model._serve = lambda image, thresholds: {
        "image_size": np.array(image.shape[:2]),
        "panoptic_map": np.full(image.shape[:2], thresholds["stuff_area"]),
        "panoptic_png_bytes": np.array(b"png", object),
    }
    webp = b"RIFF0000WEBPVP8 "
    images = [
        png((5, 4)),
        b"",
        png((3, 7)),
        webp,
        b"P6 1 1 255 abc",
        png((50, 41)),
        png((9, 9))[:90],
    ]
    answer = model(np.array(images, object), stuff_area=np.arange(7))
    errors = [error.decode() for error in answer["error"]]
    assert errors[:4] == ["", "the image is empty", "", not_served("WebP")]
    assert errors[4] == "the image cannot be decoded"
    assert errors[5] == "the image has 2050 pixels; at most 2000 are served (serve.max_pixels)"
    assert errors[6].startswith("the image cannot be decoded: ")
    assert answer["panoptic_map"].shape == (7, 5, 7)
    assert answer["panoptic_map"].sum() == 2 * 3 * 7 and answer["panoptic_map"][2, 2, 6] == 2
    assert list(model(np.array([b""], object))) == ["error"]


def test_what_is_exported_already_is_not_changed():
    for kind, more, reason in (
        (model_source.ONNX, {"overrides": ("merge.stuff_area=1",)}, "copied as it is"),
        (model_source.EXPORTED, {"overrides": ("serve.max_pixels=1",)}, "copied as it is"),
        (model_source.ONNX, {"config": "a.yaml"}, "copied as it is"),
        (model_source.OPENVINO, {}, "exported already"),
    ):
        with pytest.raises(ConfigError, match=reason):
            export_triton(ModelSource("m", kind, pathlib.Path("m"), **more), "absent")
