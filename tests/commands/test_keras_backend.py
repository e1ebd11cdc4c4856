"""What the commands do where Keras is told to use another backend."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest
from command_line import TINY

from tf_panoptic_fpn.commands.quiet_tensorflow import EVERY_BACKEND, import_tensorflow
from tf_panoptic_fpn.config import load_config, save_config
from tf_panoptic_fpn.data.splits import load_split, resolve_data
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
from tf_panoptic_fpn.inference.load_predictor import need_tensorflow
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.models.build_model import build_model
from tf_panoptic_fpn.workdir import Workdir


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_answered_in_one_line(monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(ConfigError, match=f"`KERAS_BACKEND` must be unset.*'{backend}'$"):
        import_tensorflow()


def test_an_unknown_backend_is_answered_in_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    with pytest.raises(ConfigError, match=r"'tensorflow' or 'jax' or 'torch' for.*'numpy'$"):
        import_tensorflow(EVERY_BACKEND)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run whose model has been built and saved, and not trained."""
    files = Workdir(tmp_path_factory.mktemp("run"))
    config = resolve_data(load_config(TINY), files.path)
    save_config(config, files.config)
    load_split(config.data, "train").categories.save(files.categories)
    build_model(config.model).save(files.model)
    return files


@pytest.mark.slow
def test_evaluate_gives_the_figures_of_tensorflow(run, tmp_path):
    """The images have the network's size, so that both read the same pixels."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed (pip install .[backends])")
    output = tmp_path / "torch"
    arguments = [f"--model={run.path}", f"--output={output}"]
    done = subprocess.run(
        [sys.executable, "-m", "tf_panoptic_fpn", "evaluate", *arguments],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    received = json.loads((output / "results.json").read_text(encoding="utf-8"))
    expected = evaluate_run(find_model(run.path), tmp_path / "tensorflow")
    assert received["semantic"]["mIoU"] > 0
    for name in ("mIoU", "fIoU", "pixel_accuracy"):
        assert received["semantic"][name] == pytest.approx(expected["semantic"][name], abs=1e-4)
    counts = [
        {name: [each[key] for key in ("tp", "fp", "fn")] for name, each in classes.items()}
        for classes in (results["panoptic"]["per_class"] for results in (received, expected))
    ]
    assert counts[0] == counts[1]
    assert sum(fp for _, fp, _ in counts[0].values()) > 5


def test_what_needs_tensorflow_is_said(monkeypatch):
    options = {"--tta": False, "--sweep": True}
    need_tensorflow(options)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    need_tensorflow({**options, "--sweep": False})
    with pytest.raises(ConfigError, match=r"^--sweep needs TensorFlow.* Received: 'torch'$"):
        need_tensorflow(options)
