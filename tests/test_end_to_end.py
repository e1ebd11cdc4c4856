"""The commands as a user runs them: train, resume, evaluate, predict, export, serve."""

import copy
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock

import numpy as np
import pytest
from command_line import ROOT, TINY, TRAIN_ONLY, metrics, run, run_here, weights
from PIL import Image

from tf_panoptic_fpn import load_config, schema
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png, write_panoptic_png
from tf_panoptic_fpn.inference import load_predictor as load_predictor_module
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.training.loop import train


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run of `train.py`."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    done = run("train.py", f"--config={TINY}", f"--workdir={folder}")
    assert "PQ" in done.stdout
    assert str(folder / "saved_model" / "1") in done.stdout
    return folder


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """What the commands in this process load of one model is traced once."""
    build, built = load_predictor_module.build_predictor, {}

    def build_once(source, config, *others):
        settings = config.merge.model_dump_json(), config.data.validation.model_dump_json()
        key = source.path, *settings
        if key not in built:
            built[key] = build(source, config, *others)
        return copy.copy(built[key])  # `predict` changes what it is given

    with unittest.mock.patch.object(load_predictor_module, "build_predictor", build_once):
        yield


@pytest.fixture(scope="module")
def images(workdir):
    return sorted((workdir / "shapes" / "validation" / "images").glob("*.jpg"))


@pytest.mark.slow
def test_a_run_leaves_everything(workdir):
    categories = "saved_model/1/assets/categories.json"
    for name in ("config.yaml", "checkpoints/checkpoint", "model.keras", categories):
        assert (workdir / name).exists(), name
    assert [line["step"] for line in metrics(workdir)] == [1, 2, 3, 4, 5, 6]
    line = metrics(workdir)[0]
    names = ("rpn_class", "rpn_box", "class", "box", "mask", "semantic")
    total = sum(line["loss"][name] for name in names)
    np.testing.assert_allclose(total, line["loss"]["total"], rtol=1e-5)

    results = json.loads((workdir / "results.json").read_text())
    for group in ("All", "Things", "Stuff"):
        assert set(results["panoptic"][group]) == {"PQ", "SQ", "RQ", "n"}
    assert results["panoptic"]["All"]["n"] == len(results["panoptic"]["per_class"]) == 8
    assert {"AP", "AP50", "AP75"} <= set(results["mask_ap"]) & set(results["box_ap"])
    assert 0 <= results["semantic"]["mIoU"] <= 1

    predictions = json.loads((workdir / "predictions" / "panoptic.json").read_text())
    assert len(predictions["annotations"]) == 3
    for annotation in predictions["annotations"]:
        ids = read_panoptic_png(workdir / "predictions" / "panoptic" / annotation["file_name"])
        areas = {s["id"]: s["area"] for s in annotation["segments_info"]}
        assert areas == {i: int((ids == i).sum()) for i in np.unique(ids) if i}
    assert len(list((workdir / "predictions" / "overlays").iterdir())) == 3


@pytest.mark.slow
def test_evaluate_gives_the_same_results(workdir, tmp_path, monkeypatch):
    arguments = ("evaluate", f"--workdir={workdir}", f"--output={tmp_path}")
    assert run_here(monkeypatch, "tf_panoptic_fpn", *arguments) == 0
    results = [json.loads((f / "results.json").read_text()) for f in (workdir, tmp_path)]
    for result in results:
        del result["seconds_per_image"]
    assert results[0] == results[1]


@pytest.mark.slow
def test_predict_writes_three_files_and_skips_a_damaged_image(
    workdir, images, tmp_path, monkeypatch, capsys
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(images[0].read_bytes()[:200])
    arguments = [f"--workdir={workdir}", f"--output={tmp_path / 'out'}", broken, *images[:2]]
    assert run_here(monkeypatch, "tf_panoptic_fpn", "predict", *arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "broken.jpg" in last
    for image in images[:2]:
        stem = tmp_path / "out" / image.stem
        ids = read_panoptic_png(f"{stem}_panoptic.png")
        document = json.loads(pathlib.Path(f"{stem}.json").read_text())
        assert (document["height"], document["width"]) == ids.shape
        assert {s["id"] for s in document["segments_info"]} == set(np.unique(ids)) - {0}
        assert np.asarray(Image.open(f"{stem}_overlay.png")).ndim == 3


SERVE = """
import sys
sys.modules["keras"] = sys.modules["tf_panoptic_fpn"] = None  # an import of either fails
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
files = [tf.io.read_file(path) for path in sys.argv[3:]]
outputs = loaded.signatures["serving_default"](image_bytes=tf.stack(files))
image = tf.io.decode_jpeg(files[0], dct_method="INTEGER_ACCURATE")
tensor = loaded.signatures["tensor"](images=image[None])
np.savez(
    sys.argv[2],
    tensor_map=tensor["panoptic_map"][0],
    **{k: v for k, v in outputs.items() if v.dtype != tf.string},
)
for i, png in enumerate(outputs["panoptic_png_bytes"].numpy()):
    open(f"{sys.argv[2]}_{i}.png", "wb").write(png)
"""


@pytest.mark.slow
def test_saved_model_equals_the_python_model(workdir, images, tmp_path, monkeypatch):
    """Bytes of images of two sizes in a batch, in a process without Keras and this package."""
    exported = tmp_path / "model" / "1"
    arguments = (f"--workdir={workdir}", f"--output={exported}")
    assert run_here(monkeypatch, "export/export_saved_model.py", *arguments) == 0
    larger = tmp_path / "larger.jpg"
    Image.open(images[1]).resize((120, 150)).save(larger)
    files = [images[0], larger]
    run("-c", SERVE, exported, tmp_path / "served.npz", *files)
    served = np.load(tmp_path / "served.npz")
    predictor = load_predictor(workdir)
    for i, file in enumerate(files):
        (expected,) = predictor.run(read_image(file)[None])
        height, width = expected[schema.PANOPTIC_MAP].shape
        assert tuple(served["image_size"][i]) == (height, width)
        assert expected[schema.PANOPTIC_MAP].max() > 0
        for name in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP):
            np.testing.assert_array_equal(served[name][i, :height, :width], expected[name])
            assert not served[name][i, height:].any()
        for name in (schema.CATEGORY_IDS, schema.AREAS, schema.NUM_SEGMENTS, schema.IS_THING):
            np.testing.assert_array_equal(served[name][i], expected[name])
        np.testing.assert_allclose(served[schema.SCORES][i], expected[schema.SCORES], rtol=1e-6)
        png = read_panoptic_png(tmp_path / f"served.npz_{i}.png")
        np.testing.assert_array_equal(png, expected[schema.PANOPTIC_MAP])
    (expected,) = predictor.run(read_image(files[0])[None])
    np.testing.assert_array_equal(served["tensor_map"], expected[schema.PANOPTIC_MAP])


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(workdir, tmp_path):
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", TRAIN_ONLY, TINY, str(killed)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (killed / "checkpoints" / "checkpoint").exists() or len(metrics(killed)) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.keras").exists()
    run("-c", TRAIN_ONLY, TINY, killed)
    assert [line["step"] for line in metrics(killed)] == [1, 2, 3, 4, 5, 6]
    expected = weights(workdir)
    for path, value in weights(killed).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.fixture
def damaged(workdir, tmp_path):
    """A copy of the data in a new workdir, to be damaged by a test."""
    shutil.copytree(workdir / "shapes", tmp_path / "shapes")
    return tmp_path / "shapes" / "train"


# Determinism, once on, stays on in the process of the tests.
IN_PROCESS = "train.deterministic=false"


def test_a_damaged_image_in_training_is_skipped_and_counted(damaged, tmp_path, caplog):
    image = sorted((damaged / "images").iterdir())[0]
    image.write_bytes(image.read_bytes()[:300])
    train(load_config(TINY, [IN_PROCESS, "train.steps=3"]), tmp_path)  # one epoch
    assert metrics(tmp_path)[-1]["damaged_images"] == 1
    assert f"skipped a damaged image: {image}" in caplog.text


def test_a_map_with_ids_that_the_json_lacks_stops_training(damaged, tmp_path, monkeypatch, capsys):
    maps = sorted((damaged / "panoptic").iterdir())
    for path in maps:
        ids = read_panoptic_png(path)
        ids[:2, :2] = 777
        write_panoptic_png(ids, path)
    arguments = (f"--config={TINY}", f"--workdir={tmp_path}", f"--set={IN_PROCESS}")
    assert run_here(monkeypatch, "train.py", *arguments) == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert any(f"{path}: the map holds ids that the JSON lacks: 777" in error for path in maps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.stepz=3"], "unknown key `train.stepz`; did you mean `steps`?"),
        (["--set", "model.num_thing_classes=7"], "`model.num_thing_classes` must be 4"),
        (["--workdir=/proc/nowhere"], "/proc/nowhere: the workdir cannot be written"),
    ],
)
def test_errors_of_the_command_line_are_one_line(tmp_path, arguments, message, monkeypatch, capsys):
    arguments = [f"--config={TINY}", f"--workdir={tmp_path}", *arguments]
    assert run_here(monkeypatch, "train.py", *arguments) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_an_error_of_a_program_is_no_traceback(tmp_path):
    done = run("train.py", f"--config={tmp_path}/absent.yaml", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_the_onnx_file_is_a_model(workdir, images, tmp_path, monkeypatch):
    """`evaluate` gives the figures of the run, `predict` its map."""
    file = tmp_path / "model.onnx"
    arguments = (f"--workdir={workdir}", f"--output={file}")
    assert run_here(monkeypatch, "export/export_onnx.py", *arguments) == 0
    arguments = (f"--model={file}", f"--config={workdir / 'config.yaml'}")
    output = f"--output={tmp_path / 'results'}"
    assert run_here(monkeypatch, "tf_panoptic_fpn", "evaluate", *arguments, output) == 0
    results = [
        json.loads((f / "results.json").read_text()) for f in (workdir, tmp_path / "results")
    ]
    for kind, name in (("box_ap", "AP"), ("mask_ap", "AP50"), ("semantic", "mIoU")):
        np.testing.assert_allclose(*(result[kind][name] for result in results), atol=1e-4)
    for group in ("All", "Things", "Stuff"):
        np.testing.assert_allclose(*(r["panoptic"][group]["PQ"] for r in results), atol=1e-4)
    output = f"--output={tmp_path / 'out'}"
    arguments = (f"--model={file}", output, "--write=png", images[0])
    assert run_here(monkeypatch, "tf_panoptic_fpn", "predict", *arguments) == 0
    ids = read_panoptic_png(tmp_path / "out" / f"{images[0].stem}_panoptic.png")
    expected = load_predictor(workdir)(images[0]).panoptic_map
    assert (ids != expected).sum() <= 10
