"""Triton's server itself, where it is, on an export, behind its gate."""

import concurrent.futures
import gzip
import http.client
import importlib
import io
import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import time
import types
import urllib.request
import zlib

import numpy as np
import pytest
from command_line import ROOT, run
from noise_png import png
from PIL import Image
from small_model import make_tiny_model

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.export.triton import export_triton
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.inference.predictor import Predictor

pytestmark = pytest.mark.usefixtures("short_backbones")

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(k + 50, f"stuff {k}", False) for k in range(4))
)
MODEL, ONNX_MODEL = "panoptic_fpn", "panoptic_fpn_onnx"


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
    assert line["all"] == {"400": 200} and line["good"] == 200
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


def server_behind(server):
    """The process behind the gate, and the path of its socket of HTTP."""
    (child,) = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    flags = pathlib.Path(f"/proc/{child}/cmdline").read_text().split("\0")
    (place,) = (flag for flag in flags if flag.startswith("--http-address=unix:"))
    return child, place.partition(":")[2]


def post(server, path, body, **headers):
    """Status and text of an answer over HTTP."""
    url = f"http://{server.http}/v2/models/{MODEL}/{path}"
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def peak_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_what_would_end_the_server_is_refused(server, predictor):
    child, _ = server_behind(server)
    image = {"name": "image_bytes", "datatype": "BYTES", "data": []}
    none = json.dumps({"inputs": [{**image, "shape": [0, 1]}]}).encode()
    twice = none.replace(b'"shape"', b'"shape": [0, 1], "shape"').replace(b"[0, 1]}", b"[1, 1]}")
    rule = "`inputs[0].shape` must be a list of integers above 0. Received: [0, 1]"
    for path, body, headers, text in (
        ("infer", none, {}, rule),
        ("versions/1/infer", none, {"Inference_Header_Content_Length": str(len(none))}, rule),
        ("infer", gzip.compress(none), {"Content_Encoding": "gzip"}, rule),
        ("infer", twice, {}, "members of an object must differ in name"),
        ("generate", b'{"image_bytes": []}', {}, "an input must have values"),
        ("generate_stream", b'{"image_bytes": []}', {}, "an input must have values"),
        ("infer", b"[" * 200_000, {}, "maximum recursion depth"),
        ("load", b"[" * 200_000, {}, "maximum recursion depth"),
    ):
        status, answer = post(server, path, body, **headers)
        assert status == 400 and text in json.loads(answer)["error"], (path, body[:80], answer)
    check_grpc_refuses_none(server.grpc)
    bomb = zlib.compressobj(wbits=31)
    bomb = b"".join([*(bomb.compress(bytes(1 << 20)) for _ in range(1024)), bomb.flush()])
    before = peak_mib(server.pid)
    for body, headers in ((bomb, {"Content_Encoding": "gzip"}), (bytes(65 << 20), {})):
        status, answer = post(server, "infer", body, **headers)
        assert status == 413 and "may have 67108864 bytes (--max-request-bytes)" in answer
    assert peak_mib(server.pid) - before < 256
    assert server_behind(server)[0] == child
    good = png((48, 64))
    (expected,) = predictor.run(np.asarray(Image.open(io.BytesIO(good)))[None])
    check_right(infer("http", server.http, [good]), expected)
    check_right(infer("grpc", server.grpc, [good]), expected)


def check_grpc_refuses_none(address):
    """Alone, and in a stream, behind a good one."""
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    client = tritonclient.grpc.InferenceServerClient(address)
    none = tritonclient.grpc.InferInput("image_bytes", [0, 1], "BYTES")
    none.set_data_from_numpy(np.zeros((0, 1), object))
    some = tritonclient.grpc.InferInput("image_bytes", [1, 1], "BYTES")
    some.set_data_from_numpy(np.array([[png((48, 64))]], object))
    with pytest.raises(InferenceServerException, match=r"integers above 0.*\[0, 1\]") as error:
        client.infer(MODEL, [none])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    ended = queue.Queue()
    client.start_stream(lambda result, error: ended.put((result, error)))
    client.async_stream_infer(MODEL, [some])
    client.async_stream_infer(MODEL, [none])
    result, error = ended.get(timeout=60)
    assert error is None and result.as_numpy("num_segments").shape == (1, 1)
    result, error = ended.get(timeout=60)
    assert result is None and "integers above 0" in str(error)
    client.stop_stream()


class Unix(http.client.HTTPConnection):
    """To a socket in a file, whose path is the host."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def request_of(image):
    """The body of a request over HTTP, and its headers."""
    import tritonclient.http

    value = tritonclient.http.InferInput("image_bytes", [1, 1], "BYTES")
    value.set_data_from_numpy(np.array([[image]], object))
    body, head = tritonclient.http.InferenceServerClient.generate_request_body([value])
    return body, {"Inference-Header-Content-Length": str(head)}


@pytest.mark.slow
def test_all_else_is_as_the_server_says_it(server):
    _, path = server_behind(server)
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    assert large.tell() > 5_000_000
    good, head = request_of(png((48, 64)))
    place_of_infer, names = f"/v2/models/{MODEL}/infer", ("Content-Type", "Content-Length")
    for method, place, body, headers in (
        ("GET", "/v2", None, {}),
        ("GET", "/v2/health/ready", None, {}),
        ("GET", f"/v2/models/{MODEL}/versions/1/config", None, {}),
        ("GET", "/v2/models/none", None, {}),
        ("GET", "/v2/none?a=%20b", None, {}),
        ("POST", "/v2/repository/index", b'{"ready": true}', {}),
        ("POST", place_of_infer, good, head),
        ("POST", place_of_infer, *request_of(large.getvalue())),
        ("POST", place_of_infer, good, {**head, "Accept-Encoding": "gzip"}),
    ):
        answers = []
        for connection in (http.client.HTTPConnection(server.http), Unix(path)):
            connection.request(method, place, body, headers)
            answer = connection.getresponse()
            answers.append((answer.status, [answer.headers[n] for n in names], answer.read()))
        assert answers[0] == answers[1], place
