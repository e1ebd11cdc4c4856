"""Helpers for tests that run the commands, in processes of their own or in this one."""

import json
import pathlib
import runpy
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


def run_here(monkeypatch, program, *arguments):
    """Runs a program of the project, or a module, in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [str(program), *map(str, arguments)])
    try:
        if str(program).endswith(".py"):
            runpy.run_path(str(ROOT / program), run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        return error.code
    return 0


def weights(workdir):
    model = load_model(pathlib.Path(workdir) / "model.keras")
    return {variable.path: variable.numpy() for variable in model.trainable_variables}


def metrics(workdir):
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
