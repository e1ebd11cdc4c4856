"""Seconds from the command to what a person waits for, part by part.

python benchmarks/startup.py [--config=quickstart] [--of step prediction evaluation export]
    [--peer=CHECKOUT] [--rounds=1]

The commands are run as they are, until the first step of a training is done, the first image is
predicted and drawn, the first image of an evaluation is scored, or the model is exported; the last
three with a run of one step. "start" is the interpreter, "imports" TensorFlow, Keras and the rooms
that are used, "data" what is drawn and read, "first run" that of each graph, with what TensorFlow
does before it; "rest" what is in none of these. The peer is the source of another version, such as
0.1, which takes turns with this one; `ratios` are processor seconds of this version to those of it.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import measure

from tf_panoptic_fpn.config.recipes import find_config
from tf_panoptic_fpn.errors import PanopticError, exit_on_error

WHAT = ("step", "prediction", "evaluation", "export")
OWN = pathlib.Path(__file__).resolve().parent.parent
CLOCK = OWN / "benchmarks" / "startup_clock.py"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="quickstart", help="one with drawn shapes")
    parser.add_argument("--of", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--peer", type=pathlib.Path, help="folder with the source of another one")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    line = {"benchmark": "startup", **measure.machine("tensorflow", "keras")}
    config = find_config(arguments.config).absolute()
    checkouts = {"": OWN, **({"peer: ": arguments.peer.resolve()} if arguments.peer else {})}
    stages = measure.Stages()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        needs_run = set(arguments.of) != {"step"}
        for name, checkout in checkouts.items():
            if needs_run:
                train_once(checkout, config, folder / f"{name[:4]}run")
        for number in range(arguments.rounds):
            for what in arguments.of:
                for name, checkout in checkouts.items():
                    run, output = folder / f"{name[:4]}run", folder / f"{name[:4]}{what}{number}"
                    parts = measure_start(what, checkout, config, run, output)
                    for part, seconds in parts.items():
                        stages.add(f"{name}{what}: {part}", *seconds)
    line["config"] = arguments.config
    figures = stages.medians()
    if arguments.peer:
        line["ratios"] = {
            what: round(figures[f"{what}: all"]["cpu"] / figures[f"peer: {what}: all"]["cpu"], 3)
            for what in arguments.of
        }
    measure.report(line, stages)


def train_once(checkout, config, workdir):
    """A finished run, of a single step."""
    settings = ("train.steps=1", "optimizer.warmup_steps=0", "optimizer.drop_steps=[]")
    arguments = [f"--config={config}", f"--workdir={workdir}", *(f"--set={s}" for s in settings)]
    run_of(checkout, [checkout / "train.py", *arguments])


def measure_start(what, checkout, config, run, output):
    """dict part -> (wall, processor) seconds, of a process that starts now."""
    model = [f"--workdir={run}", f"--output={output}"]
    programs = {
        "step": [checkout / "train.py", f"--config={config}", f"--workdir={output}"],
        "prediction": [
            *("tf_panoptic_fpn", "predict", *model),
            run / "shapes" / "validation" / "images" / "00000.jpg",
        ],
        "evaluation": ["tf_panoptic_fpn", "evaluate", *model],
        "export": [checkout / "export" / "export_saved_model.py", *model],
    }
    result = output.with_suffix(".json")
    run_of(checkout, [CLOCK, result, time.time(), *programs[what]])
    return json.loads(result.read_text(encoding="utf-8"))


def run_of(checkout, arguments):
    """Runs a Python program with a checkout's package; what it prints is shown if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise PanopticError(f"{arguments[0]}: the process has ended with {done.returncode}")


if __name__ == "__main__":
    exit_on_error(main)
