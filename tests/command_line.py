"""Helpers for tests that run the commands in processes of their own."""

import json
import pathlib
import subprocess
import sys

from tf_panoptic_fpn import load_model

ROOT = pathlib.Path(__file__).parent.parent
TINY = str(ROOT / "tests" / "tiny.yaml")
TRAIN_ONLY = (
    "import sys; from tf_panoptic_fpn import load_config; "
    "from tf_panoptic_fpn.training.loop import train; "
    "train(load_config(sys.argv[1], sys.argv[3:]), sys.argv[2])"
)


def run(*arguments, check=True):
    """Runs a Python program from the root of the project."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def weights(workdir):
    model = load_model(pathlib.Path(workdir) / "model.keras")
    return {variable.path: variable.numpy() for variable in model.trainable_variables}


def metrics(workdir):
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
