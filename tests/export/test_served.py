"""One exported model: its signatures, its assets, and what it answers to bad images."""

import contextlib
import hashlib
import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from command_line import ROOT
from gpu_kernels import gpu_kernels, ops_without_gpu_kernel
from PIL import Image
from pycocotools import mask as mask_api
from small_model import make_tiny_model

from tf_panoptic_fpn import __version__, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import Config, MergeConfig, ServeConfig, SplitConfig
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.export import saved_model
from tf_panoptic_fpn.export.check import check_export, example_image
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.export.served_graph import ServedGraph
from tf_panoptic_fpn.export.warm_up import WARM_UP
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.results.result import Result

pytestmark = pytest.mark.usefixtures("short_backbones")

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(k + 60, f"stuff {k}", False) for k in range(4))
)
MERGE = MergeConfig(score_threshold=0.1, stuff_area=16)
CONFIG = Config(serve=ServeConfig(max_pixels=9000), merge=MERGE)
# Run on the host: reading files, with a dataset that passes over bad ones; writing PNGs; texts; and
# the lists of maps that differ in size from image to image, which a tensor cannot hold.
ON_THE_HOST = {
    *("DecodeJpeg", "DecodePng", "ExtractJpegShape", "EncodePng", "DecodeRaw"),
    *("TensorDataset", "MapDataset", "IgnoreErrorsDataset", "ReduceDataset", "OptionsDataset"),
    *("StringJoin", "StringLength", "Substr", "AsString"),
    *("RaggedTensorToTensor", "RaggedTensorToVariant", "RaggedTensorFromVariant"),
    *("TensorListStack", "TensorListSetItem"),  # of variants, the rows of such maps
    *("Tile", "Pad"),  # of the bytes of a file
}
IMAGES = [example_image(48, 80), example_image(70, 33), np.full((1, 1, 3), 99, np.uint8)]


def encoded(image, file_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format, lossless=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def predictor():
    split = SplitConfig(short_sides=(32,), max_long_side=64)
    return Predictor(make_tiny_model(), CATEGORIES, MERGE, split)


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("panoptic_fpn") / "1"
    export_saved_model(predictor, folder, CONFIG)
    return folder


@pytest.mark.skipif(
    not gpu_kernels("Conv2D"), reason="this build of TensorFlow knows no kernels of GPUs"
)
def test_what_of_the_served_graph_no_gpu_runs(predictor):
    """From pixels on, nothing; around them, decoding, encoding, texts and maps of many sizes."""
    assert ops_without_gpu_kernel(predictor.traced.get_concrete_function()) == {}
    graph = ServedGraph(predictor)
    served = tf.function(graph.serve_bytes, [tf.TensorSpec([None], tf.string)], autograph=False)
    found = ops_without_gpu_kernel(served.get_concrete_function())
    rest = {
        text for text in found if text.partition("(")[0] not in ON_THE_HOST and "string" not in text
    }
    assert rest == set()


@pytest.fixture(scope="module")
def serve(folder):
    """Function: (signature, images, thresholds) -> dict of arrays."""
    loaded = tf.saved_model.load(str(folder))

    def run(signature, images, **thresholds):
        function = loaded.signatures[signature]
        outputs = function(image_bytes=tf.constant(images, tf.string), **thresholds)
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def test_bad_images_are_answered_and_the_others_served(serve, predictor):
    good = [encoded(image) for image in IMAGES]
    bomb = good[0][:16] + b"\xff" * 8 + good[0][24:]
    bad = {
        encoded(IMAGES[0], "WebP"): "a WebP file is not served",
        encoded(IMAGES[0], "GIF"): "a GIF file is not served",
        encoded(IMAGES[0], "BMP"): "a BMP file is not served",
        encoded(IMAGES[0], "JPEG")[:400]: "cannot be decoded",
        good[0][:200]: "cannot be decoded",
        b"<html>": "cannot be decoded",
        b"": "is empty",
        encoded(example_image(90, 101)): "has 9090 pixels; at most 9000 are served",
        encoded(example_image(90, 101), "JPEG"): "has 9090 pixels; at most 9000 are served",
        bomb: "has 18446744065119617024 pixels",
    }
    outputs = serve("serving_default", [good[0], *bad, *good[1:]])
    assert [bool(error) for error in outputs["error"]] == [False, *[True] * len(bad), False, False]
    for row, expected in enumerate(bad.values(), 1):
        assert expected in outputs["error"][row].decode()
        assert outputs["num_segments"][row] == outputs["num_detections"][row] == 0
        assert not outputs["image_size"][row].any() and not outputs["panoptic_png_bytes"][row]
        assert not outputs[schema.PANOPTIC_MAP][row].any()
        assert (outputs[schema.CATEGORY_IDS][row] == -1).all()
    for row, image in zip((0, -2, -1), IMAGES, strict=True):
        (expected,) = predictor.run(image[None])
        height, width = image.shape[:2]
        assert outputs["image_size"][row].tolist() == [height, width]
        served = outputs[schema.PANOPTIC_MAP][row, :height, :width]
        np.testing.assert_array_equal(served, expected[schema.PANOPTIC_MAP])
        for name in (schema.CATEGORY_IDS, schema.NUM_SEGMENTS, schema.AREAS, schema.BOXES):
            np.testing.assert_array_equal(outputs[name][row], expected[name])
    assert outputs[schema.NUM_SEGMENTS][0] > 3


def test_one_bad_image_and_none(serve):
    outputs = serve("serving_default", [b"no image"])
    assert outputs["error"].tolist() == [b"the image cannot be decoded"]
    assert outputs[schema.PANOPTIC_MAP].shape == (1, 0, 0)
    for name in ("serving_default", "instances", "semantic"):
        outputs = serve(name, [])
        assert all(len(value) == 0 for value in outputs.values()), name


def test_thresholds_are_of_each_image(serve, predictor):
    image = IMAGES[0]
    rows = [(0.1, 0.5, 16, 7), (0.1, 1.0, 4000, 7), (0.9, 0.5, 0, 7), (0.1, 0.5, 16, 2)]
    names = ("score_threshold", "overlap_threshold", "stuff_area", "max_detections")
    dtypes = (np.float32, np.float32, np.int32, np.int32)
    columns = zip(names, dtypes, zip(*rows, strict=True), strict=True)
    thresholds = {name: tf.constant(np.array(column, dtype)) for name, dtype, column in columns}
    outputs = serve("with_thresholds", [encoded(image)] * len(rows), **thresholds)
    for row, (score, overlap, area, _) in list(enumerate(rows))[:3]:
        merge = MergeConfig(score_threshold=score, overlap_threshold=overlap, stuff_area=area)
        inputs = Predictor(predictor.model, CATEGORIES, merge, SplitConfig()).thresholds
        expected = predictor.traced(image[None], inputs)
        served = outputs[schema.PANOPTIC_MAP][row]
        np.testing.assert_array_equal(served, expected[schema.PANOPTIC_MAP][0])
    default = serve("serving_default", [encoded(image)])
    np.testing.assert_array_equal(outputs[schema.AREAS][0], default[schema.AREAS][0])
    assert outputs["num_detections"].tolist() == [7, 7, 7, 2]
    assert (outputs["detection_category_ids"][3] >= 0).sum() == 2
    assert outputs["detection_scores"][3].tolist() == [
        *default["detection_scores"][0, :2],
        *[0] * 5,
    ]
    maps = outputs[schema.PANOPTIC_MAP]
    assert outputs[schema.IS_THING].sum(1)[[0, 2, 3]].tolist() == [
        default[schema.IS_THING].sum(), 0, min(2, default[schema.IS_THING].sum())
    ]  # fmt: skip
    assert not (maps[0] == maps[1]).all()


def test_instances_as_coco_rle(serve, predictor):
    outputs = serve("instances", [encoded(image) for image in IMAGES])
    for row, image in enumerate(IMAGES):
        (expected,) = predictor.run(image[None])
        instances = Result.from_outputs(expected, CATEGORIES).instances
        assert outputs["num_detections"][row] == len(instances)
        for rle, instance in zip(outputs["detection_rle_bytes"][row], instances, strict=False):
            size = instance["segmentation"]["size"]
            decoded = mask_api.decode({"size": size, "counts": rle})
            differing = decoded != mask_api.decode(instance["segmentation"])
            assert differing.sum() <= 1  # of two products, rounded
        assert not any(outputs["detection_rle_bytes"][row][len(instances) :])
    assert "detection_mask_probs" not in outputs


def test_semantic_map_as_png(serve, predictor):
    outputs = serve("semantic", [encoded(IMAGES[1]), b"none", encoded(IMAGES[0])])
    ids = np.array([0, *CATEGORIES.stuff_ids])
    for row, image in ((0, IMAGES[1]), (2, IMAGES[0])):
        png = np.asarray(Image.open(io.BytesIO(outputs["semantic_png_bytes"][row])))
        (expected,) = predictor.run(image[None])
        np.testing.assert_array_equal(png, ids[expected[schema.SEMANTIC_MAP]])
    assert outputs["semantic_png_bytes"][1] == b""
    assert outputs["error"][1] == b"the image cannot be decoded"


def test_assets(folder, predictor):
    settings = json.loads((folder / "assets/settings.json").read_text(encoding="utf-8"))
    assert settings["version"] == __version__
    assert settings["serve"] == {
        "max_pixels": 9000, "weights": "float32", "canvases": [], "batch": 1
    }  # fmt: skip
    assert Config(**settings["config"]) == CONFIG
    assert set(settings["colors"]) == {str(c.id) for c in CATEGORIES.categories}
    digest = hashlib.sha256()
    for weight in predictor.model.weights:
        values = weight.numpy()
        digest.update(f"{weight.path} {values.shape} {values.dtype}".encode() + values.tobytes())
    assert settings["weights_sha256"] == digest.hexdigest()


def test_weights_are_stored_once(folder, predictor):
    stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    weights = sum(weight.numpy().nbytes for weight in predictor.model.weights)
    assert weights <= stored < 1.1 * weights + 20_000


def test_warm_up_requests(folder, serve):
    apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(folder / WARM_UP))]
    requests = [apis.PredictionLog.FromString(r).predict_log.request for r in records]
    names = [request.model_spec.signature_name for request in requests]
    assert names == ["serving_default", "instances", "semantic"]
    for request in requests:
        assert request.model_spec.name == folder.parent.name
        assert list(request.inputs) == ["image_bytes"]
        (image,) = tf.make_ndarray(request.inputs["image_bytes"])
        assert Image.open(io.BytesIO(image)).size == (640, 480)


def test_configuration_of_tf_serving():
    pytest.importorskip("tensorflow_serving")
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = (ROOT / "export/tf_serving/models.config").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("panoptic_fpn", "/models/panoptic_fpn")
    assert model.model_platform == "tensorflow"


@pytest.mark.slow
def test_a_difference_is_found_and_nothing_replaced(folder, predictor, monkeypatch):
    check_export(folder, predictor, 9000)
    before = sorted(folder.parent.rglob("*"))
    weight = predictor.model.semantic_head.predictor.kernel
    values = weight.numpy()
    weight.assign(values[..., ::-1])
    try:
        with pytest.raises(PanopticError, match=r"differs from the model: \d+ of \d+ pixels of a"):
            check_export(folder, predictor, 9000)
        monkeypatch.setattr(saved_model, "check_export", raise_difference)
        with pytest.raises(PanopticError, match="1: not written: it differs") as raised:
            export_saved_model(predictor, folder, CONFIG, check=True)
        assert "\n" not in str(raised.value)
    finally:
        weight.assign(values)
    assert sorted(folder.parent.rglob("*")) == before


def raise_difference(folder, predictor, max_pixels):
    raise PanopticError("it differs")


@pytest.mark.slow
def test_what_cannot_be_run_is_no_export(tmp_path, predictor):
    with pytest.raises(PanopticError, match=r"cannot be run: .*saved_model"):
        check_export(tmp_path, predictor, 9000)


@pytest.fixture
def server(folder):
    """The address of a server that runs the SavedModel as TF Serving does, in a session."""
    pytest.importorskip("tensorflow_serving")
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tags = [tf.saved_model.SERVING]
        signatures = tf.compat.v1.saved_model.load(session, tags, str(folder)).signature_def

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            signature = signatures[request.model_spec.signature_name or "serving_default"]
            feeds = {
                signature.inputs[n].name: tf.make_ndarray(v) for n, v in request.inputs.items()
            }
            names = request.output_filter or signature.outputs
            fetched = session.run({n: signature.outputs[n].name for n in names}, feeds)
            answer = predict_pb2.PredictResponse()
            for name, value in fetched.items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    with ThreadPoolExecutor(2) as workers, contextlib.closing(session):
        running = grpc.server(workers)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), running)
        port = running.add_insecure_port("127.0.0.1:0")
        running.start()
        yield f"127.0.0.1:{port}"
        running.stop(None).wait()


def test_grpc_client(server, serve, tmp_path, monkeypatch, capsys):
    from command_line import run_here

    (tmp_path / "a.png").write_bytes(encoded(IMAGES[0]))
    (tmp_path / "b.png").write_bytes(b"none")
    arguments = (f"--server={server}", f"--output={tmp_path / 'out'}")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    status = run_here(monkeypatch, "export/tf_serving/grpc_client.py", *arguments, *files)
    assert status == 1
    assert capsys.readouterr().err.endswith("b.png: the image cannot be decoded\n")
    (written,) = pathlib.Path(tmp_path / "out").iterdir()
    expected = serve("serving_default", [encoded(IMAGES[0])])
    assert written.name == "a_panoptic.png"
    assert written.read_bytes() == expected["panoptic_png_bytes"][0]
