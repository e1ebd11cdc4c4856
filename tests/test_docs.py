"""The documents are true: their Python runs, their commands exist, the notebook works."""

import json
import os
import pickle
import sys

import keras
import nbclient
import nbformat
import numpy as np
import pytest
from command_line import TINY
from docs_commands import PAGES, ROOT, check_command_line, command_lines, python_blocks
from PIL import Image
from small_model import make_small_model

import tf_panoptic_fpn
from tf_panoptic_fpn import build_model, load_config
from tf_panoptic_fpn.__main__ import COMMANDS
from tf_panoptic_fpn.config import save_config
from tf_panoptic_fpn.data.splits import load_split, resolve_data
from tf_panoptic_fpn.export.onnx_file import export_onnx
from tf_panoptic_fpn.export.saved_model import export_model
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.metrics.semantic_iou import SemanticIoU
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO

# What a document names is run by a test of this file.
TESTED_BY = {
    "train": "tests/test_end_to_end.py",
    "sweep": "tests/training/test_sweep.py",
    "evaluate": "tests/test_end_to_end.py",
    "predict": "tests/test_end_to_end.py",
    "predict-beam": "tests/batch/test_predict_beam.py",
    "collect-predictions": "tests/batch/test_predict_beam.py",
    "demo": "tests/demo/test_demo.py",
    "export": "tests/export/test_export.py",
    "config": "tests/commands/test_config_command.py",
    "analyze": "tests/commands/test_analyze.py",
    "convert-data": "tests/convert/test_convert_sources.py",
    "validate-data": "tests/datatools/test_validate.py",
    "show-data": "tests/datatools/test_show.py",
    "write-records": "tests/data/test_tfrecords.py",
    "panoptic-quality": "tests/evaluation/test_panoptic_files.py",
    "instance-ap": "tests/formats/test_coco_results.py",
    "semantic-iou": "tests/metrics/test_semantic_iou.py",
    "cityscapes-iou": "tests/metrics/test_cityscapes_iou.py",
    "cityscapes-ap": "tests/metrics/test_cityscapes_ap.py",
    "convert-cityscapes": "tests/formats/test_cityscapes.py",
    "convert-weights": "tests/weights/test_convert_weights.py",
    "train.py": "tests/test_end_to_end.py",
    "export/export_saved_model.py": "tests/test_end_to_end.py",
    "export/export_onnx.py": "tests/test_end_to_end.py",
    "export/triton/client.py": "tests/export/test_triton_server.py",
    "export/triton/serve.py": "tests/export/test_triton_server.py",
    "export/tf_serving/client.py": "tests/export/test_serving_client.py",
    "export/tf_serving/grpc_client.py": "tests/export/test_served.py",
    "docs/render_configuration.py": "tests/config/test_documents.py",
    "docs/render_performance.py": "tests/test_performance_page.py",
    "benchmarks/backbones.py": "tests/test_benchmarks.py",
    "benchmarks/backbone_backends.py": "tests/test_benchmarks.py",
    "benchmarks/backbone_families.py": "tests/test_benchmarks.py",
    "benchmarks/dinov2_reference.py": "tests/test_benchmarks.py",
    "benchmarks/beam.py": "tests/test_benchmarks.py",
    "benchmarks/evaluation.py": "tests/test_benchmarks.py",
    "benchmarks/evaluate.py": "tests/test_benchmarks.py",
    "benchmarks/exported.py": "tests/test_benchmarks.py",
    "benchmarks/fine_tuning.py": "tests/test_benchmarks.py",
    "benchmarks/graph_size.py": "tests/test_benchmarks.py",
    "benchmarks/index.py": "tests/test_benchmarks.py",
    "benchmarks/inference.py": "tests/test_benchmarks.py",
    "benchmarks/input_pipeline.py": "tests/test_benchmarks.py",
    "benchmarks/killed_runs.py": "tests/test_benchmarks.py",
    "benchmarks/panoptic_quality.py": "tests/test_benchmarks.py",
    "benchmarks/runtimes.py": "tests/test_benchmarks.py",
    "benchmarks/stronger_models.py": "tests/test_benchmarks.py",
    "benchmarks/startup.py": "tests/test_benchmarks.py",
    "benchmarks/serving.py": "tests/test_benchmarks.py",
    "benchmarks/tiles.py": "tests/test_benchmarks.py",
    "benchmarks/triton_bodies.py": "tests/export/test_triton_server.py",
    "benchmarks/triton_load.py": "tests/export/test_triton_server.py",
    "benchmarks/triton_runtimes.py": "tests/export/test_triton_server.py",
    "benchmarks/train_step.py": "tests/test_benchmarks.py",
}
LINES = [line for line in command_lines() if line.name]


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {line.name}")
def test_a_command_line_parses(line):
    check_command_line(line)


def test_a_wrong_flag_is_found():
    line = next(line for line in LINES if line.name == "predict" and line.whole)
    for words in ((*line.words, "--batchsize=2"), line.words[:2]):
        with pytest.raises(AssertionError, match="predict"):
            check_command_line(type(line)(line.page, words, whole=True))
    with pytest.raises(AssertionError, match="no flag --batchsize"):
        check_command_line(type(line)(line.page, (*line.words, "--batchsize=2"), whole=False))


def test_every_documented_command_has_a_test():
    documented = {line.name for line in LINES}
    assert documented - set(TESTED_BY) == set()
    assert set(COMMANDS) - documented == set()
    for name, module in TESTED_BY.items():
        text = (ROOT / module).read_text(encoding="utf-8")
        stem = name.rpartition("/")[2].removesuffix(".py")
        assert f'"{stem}' in text or name in text or f" {stem.replace('-', '_')}" in text, name


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the documents speak of, of the tests' tiny model, untrained."""
    folder = tmp_path_factory.mktemp("docs")
    run = folder / "runs" / "quickstart"
    run.mkdir(parents=True)
    config = resolve_data(load_config(TINY), run)
    save_config(config, run / "config.yaml")
    table = load_split(config.data, "validation").categories
    tree = {"categories": table.to_coco()}
    (run / "categories.json").write_text(json.dumps(tree), encoding="utf-8")
    keras.utils.set_random_seed(0)
    model = build_model(config.model)
    model.save(run / "model.keras")
    line = {"step": 20, "loss": {"total": 1.0}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (folder / "my.yaml").write_bytes((ROOT / "tests" / "tiny.yaml").read_bytes())
    image = next((run / "shapes" / "validation" / "images").glob("*.jpg"))
    Image.open(image).save(folder / "street.jpg")
    Image.open(image).save(folder / "slide.tif")
    return folder


@pytest.fixture
def names(request, place, goldens_dir, monkeypatch):
    """What the blocks of a page take as given, besides the files of `place`."""
    monkeypatch.chdir(place)
    make = {"export": _export, "metrics": _metrics, "panoptic_quality": _results}
    make["weights"] = _weights
    make["watch"] = _watch
    make["onnx"] = _onnx
    return make[request.param](place, goldens_dir, monkeypatch) if request.param in make else {}


def _watch(place, _, monkeypatch):
    """MLflow writes to a folder; with the light package it has no database."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{place}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return {}


def _export(place, *_):
    """The SavedModel of the run; a published model is not exported twice."""
    if not (place / "runs/quickstart/saved_model").exists():
        export_model(find_model("runs/quickstart"))
    return {}


def _onnx(place, *_):
    """The ONNX file of the run."""
    if not (place / "runs/quickstart/model.onnx").exists():
        export_onnx(find_model("runs/quickstart"))
    return {}


def _results(place, *_):
    """An image of a cat, 17, above a dog, 18, and a prediction that is right."""
    tree = {
        "categories": [{"id": i, "name": n, "isthing": 1} for i, n in ((17, "cat"), (18, "dog"))],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "1.png",
                "segments_info": [
                    {"id": 1, "category_id": 17, "iscrowd": 0, "area": 8},
                    {"id": 2, "category_id": 18, "iscrowd": 0, "area": 8},
                ],
            }
        ],
        "images": [{"id": 1, "file_name": "1.jpg", "height": 4, "width": 4}],
    }
    for kind in ("gt", "pred"):
        (place / kind).mkdir()
        write_panoptic_png(
            np.repeat([[1], [2]], 2, 0) * np.ones((1, 4), int), place / kind / "1.png"
        )
        (place / f"{kind}.json").write_text(json.dumps(tree), encoding="utf-8")
    return {}


def _metrics(*_):
    maps = [(np.zeros((4, 4), int), np.eye(4, dtype=int))]
    other = SemanticIoU(["road", "sky"])
    other.update(*maps[0])
    return {"maps": maps, "metric_of_another_worker": other}


def _weights(place, goldens_dir, monkeypatch):
    """The goldens' small model stands for the published one, which is not downloaded."""

    def from_pretrained(name):
        assert name in MODEL_ZOO
        return make_small_model()

    monkeypatch.setattr(tf_panoptic_fpn, "from_pretrained", from_pretrained, raising=False)
    with np.load(goldens_dir / "weights_small.npz") as file:
        arrays = dict(file)
    (place / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays}))
    return {}


# The page of other backends is run on one of them by tests/models/test_backend_fit.py.
WITH_PYTHON = [page for page in PAGES if python_blocks(page) and page.stem != "other_backends"]


@pytest.mark.slow
@pytest.mark.parametrize("page, names", [(p, p.stem) for p in WITH_PYTHON], indirect=["names"])
def test_the_python_of_a_page_runs(page, names):
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.slow
def test_the_notebook_goes_from_pictures_to_a_report(tmp_path, monkeypatch):
    path = ROOT / "docs" / "notebooks" / "from_pictures_to_report.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv(
        "PATH", os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert 0 < results["panoptic"]["All"]["PQ"] <= 1
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert notebook.cells[-1].outputs[-1].data["image/png"]
