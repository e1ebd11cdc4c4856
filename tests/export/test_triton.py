"""The export for Triton: its files, its backend, and both in the server itself where it is."""

import ast
import concurrent.futures
import importlib
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import types
import urllib.request

import numpy as np
import pytest
from command_line import ROOT, run
from PIL import Image
from small_model import make_tiny_model

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.data.served_kinds import not_served
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.export.triton import config_text, export_triton
from tf_panoptic_fpn.export.triton_onnx import HELD, OnnxModel
from tf_panoptic_fpn.inference import model_source
from tf_panoptic_fpn.inference.model_source import ModelSource, find_model
from tf_panoptic_fpn.inference.predictor import Predictor

pytestmark = pytest.mark.usefixtures("short_backbones")

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(k + 50, f"stuff {k}", False) for k in range(4))
)
MODEL, ONNX_MODEL = "panoptic_fpn", "panoptic_fpn_onnx"


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


def png(size, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size[::-1]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictor():
    split = SplitConfig(short_sides=(64,), max_long_side=128)
    return Predictor(make_tiny_model(), CATEGORIES, MergeConfig(stuff_area=64), split)


@pytest.fixture(scope="module")
def server(predictor, tmp_path_factory):
    """The running server of both runtimes: its process, and where HTTP, gRPC and metrics are."""
    python = os.environ.get("TRITON_PYTHON")
    if not python:
        pytest.skip("no Triton (set TRITON_PYTHON to the interpreter of its environment)")
    pytest.importorskip("tritonclient.http")
    from tf_panoptic_fpn.export.onnx_file import write_onnx

    folder = tmp_path_factory.mktemp("triton")
    export_saved_model(predictor, folder / "saved_model")
    repository = export_triton(find_model(folder / "saved_model"), folder / "repository")
    write_onnx(predictor, folder / "model.onnx")
    limited = find_model(folder / "model.onnx", overrides=["serve.max_pixels=9000"])
    onnx = export_triton(limited, folder / "onnx")
    shutil.copytree(onnx / MODEL, repository / ONNX_MODEL)
    config = repository / ONNX_MODEL / "config.pbtxt"
    config.write_text(config.read_text().replace(f'"{MODEL}"', f'"{ONNX_MODEL}"'))
    ports = free_ports(3)
    flags = [f"--{k}-port={p}" for k, p in zip(("http", "grpc", "metrics"), ports, strict=True)]
    command = [python, ROOT / "export/triton/serve.py", repository, *flags]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--exit-timeout-secs=1"], stdout=log, stderr=log, env=environment
        )
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in ports)
    try:
        deadline = time.monotonic() + 240
        while not is_ready(http):
            text = (folder / "log").read_text(encoding="utf-8")
            assert process.poll() is None and time.monotonic() < deadline, text[-3000:]
            time.sleep(0.5)
        places = {"http": http, "grpc": grpc, "metrics": metrics, "onnx": onnx}
        yield types.SimpleNamespace(pid=process.pid, **places)
    finally:
        process.terminate()
        process.wait(60)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def is_ready(http):
    try:
        return urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=5).status == 200
    except OSError:
        return False


def infer(kind, address, images, data_type="BYTES", score_threshold=None, model=MODEL):
    """The answer of a client of tritonclient, "http" or "grpc"."""
    client_module = importlib.import_module(f"tritonclient.{kind}")
    client = client_module.InferenceServerClient(address)
    value = client_module.InferInput("image_bytes", [len(images), 1], data_type)
    value.set_data_from_numpy(
        np.array(images, object if data_type == "BYTES" else np.int32)[:, None]
    )
    values = [value]
    if score_threshold is not None:
        values.append(client_module.InferInput("score_threshold", [len(images), 1], "FP32"))
        values[1].set_data_from_numpy(np.full((len(images), 1), score_threshold, np.float32))
    return client.infer(model, values)


def check_right(answer, expected, row=0):
    height, width = expected["panoptic_map"].shape
    difference = answer.as_numpy("panoptic_map")[row, :height, :width] != expected["panoptic_map"]
    assert difference.sum() <= 10
    count = int(expected["num_segments"])
    assert answer.as_numpy("num_segments")[row] == count
    np.testing.assert_array_equal(
        answer.as_numpy("category_ids")[row, :count], expected["category_ids"][:count]
    )
    scores = answer.as_numpy("scores")[row, :count]
    np.testing.assert_allclose(scores, expected["scores"][:count], atol=1e-4)
    buffer = io.BytesIO(answer.as_numpy("panoptic_png_bytes")[row].item())
    ids = np.asarray(Image.open(buffer)).astype(int) @ [1, 256, 65536]
    np.testing.assert_array_equal(ids, answer.as_numpy("panoptic_map")[row, :height, :width])


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, ONNX_MODEL])
def test_the_server_answers_as_the_model(server, predictor, model):
    images = [png((48, 64)), png((56, 40), 1)]
    expected = [predictor.run(np.asarray(Image.open(io.BytesIO(i)))[None])[0] for i in images]
    for kind, address in (("http", server.http), ("grpc", server.grpc)):
        for image, outputs in zip(images, expected, strict=True):
            check_right(infer(kind, address, [image], model=model), outputs)
        answer = infer(kind, address, images, model=model)
        for row in (0, 1):
            check_right(answer, expected[row], row)
        none = infer(kind, address, images, score_threshold=1.0, model=model)
        assert not none.as_numpy("is_thing").any()


@pytest.mark.slow
def test_requests_at_once_are_run_together(server):
    """And health and metrics answer."""
    with concurrent.futures.ThreadPoolExecutor(
        6
    ) as pool:  # few: none may wait for longer than the queue lets it
        list(pool.map(lambda n: infer("grpc", server.grpc, [png((48, 64), n)]), range(24)))
    statistics = f"http://{server.http}/v2/models/{MODEL}/stats"
    (stats,) = json.load(urllib.request.urlopen(statistics))["model_stats"]
    sizes = {entry["batch_size"] for entry in stats["batch_stats"]}
    assert 2 <= max(sizes) <= 8
    assert stats["execution_count"] < stats["inference_count"]
    text = urllib.request.urlopen(f"http://{server.metrics}/metrics").read().decode()
    assert f'nv_inference_request_success{{model="{MODEL}",version="1"}}' in text
    assert urllib.request.urlopen(f"http://{server.http}/v2/health/live").status == 200


@pytest.mark.slow
def test_a_bad_request_is_an_error_and_the_next_one_right(server, predictor, tmp_path):
    from tritonclient.utils import InferenceServerException

    good = png((48, 64))
    (expected,) = predictor.run(np.asarray(Image.open(io.BytesIO(good)))[None])
    rng = np.random.default_rng(0)
    bad = [b"", b"x", good[:100], good[:-40], b"GIF89a", b"RIFF0000WEBPVP8 ", b"\xff\xd8\xff\xe0"]
    bad += [rng.bytes(int(n)) for n in rng.integers(1, 2000, 100)]
    both = [(image, MODEL) for image in bad] + [(image, ONNX_MODEL) for image in bad[:17]]
    for image, model in both:
        with pytest.raises(InferenceServerException) as error:
            infer("http", server.http, [image], model=model)
        assert error.value.status() == "400", error.value
    bomb = io.BytesIO()
    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    for model, limit in ((MODEL, 50_000_000), (ONNX_MODEL, 9000)):
        with pytest.raises(
            InferenceServerException, match=f"400000000 pixels; at most {limit} are"
        ):
            infer("http", server.http, [bomb.getvalue()], model=model)
    for images, data_type in (([good] * 9, "BYTES"), ([1], "INT32"), ([good, b"x"], "BYTES")):
        with pytest.raises(InferenceServerException) as error:
            infer("http", server.http, images, data_type)
        assert error.value.status() == "400", error.value
    (tmp_path / "good.png").write_bytes(good)
    place = f"--url={server.http}"
    line = json.loads(
        run("benchmarks/triton_bodies.py", f"--image={tmp_path}/good.png", place).stdout
    )
    # A body that is none of its protocol Triton itself answers, by 400 or 500.
    assert set(line["all"]) == {"400", "500"} and sum(line["all"].values()) == 200
    assert line["of_the_model"] == 0 and line["good"] == 200
    check_right(infer("http", server.http, [good]), expected)


@pytest.mark.slow
def test_under_twice_the_load(server, tmp_path):
    """The short form of the benchmark; that of the runtimes and the client of the export, too."""
    (tmp_path / "picture.png").write_bytes(png((48, 64)))
    image = tmp_path / "picture.png"
    arguments = (f"--image={image}", f"--server={server.pid}", f"--url={server.grpc}")
    done = run("benchmarks/triton_load.py", *arguments, "--seconds=10")
    line = json.loads(done.stdout)
    assert line["failed"] == 0 and line["answered"] > 0
    assert line["answered"] + line["refused"] == line["sent"]
    assert line["p99_seconds"] < 27  # the longest wait, 7 s, and to be run where others run, too
    done = run("benchmarks/triton_runtimes.py", f"--image={image}", "--rounds=1", server.onnx)
    assert json.loads(done.stdout)["outputs"] == 15
    output = tmp_path / "ids.png"
    done = run("export/triton/client.py", image, output, f"--url={server.grpc}")
    assert "1: category" in done.stdout and Image.open(output).size == (64, 48)
    text = pathlib.Path(__file__)
    done = run("export/triton/client.py", text, output, f"--url={server.grpc}", check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
