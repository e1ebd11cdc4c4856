"""Seconds from the command to what a person waits for, part by part.

python benchmarks/startup.py [--config=quickstart] [--of step prediction evaluation export]

The first training step, the first prediction, the first image of an evaluation and an export, each
in a process of its own, untrained, on drawn shapes. "start" is the interpreter and the
configuration, "imports" TensorFlow, Keras and the rooms that are used.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.errors import PanopticError, exit_on_error

WHAT = ("step", "prediction", "evaluation", "export")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="quickstart", help="one with drawn shapes")
    parser.add_argument("--of", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.started is not None:
        (what,) = arguments.of
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(Parts(arguments).run(what, pathlib.Path(folder))))
        return
    line = {"benchmark": "startup", **measure.machine("tensorflow", "keras")}
    stages = measure.Stages()
    for _ in range(arguments.rounds):
        for what in arguments.of:
            for name, seconds in measure_start(what, arguments.config).items():
                stages.add(f"{what}: {name}", *seconds)
    measure.report({**line, "config": arguments.config}, stages)


def measure_start(what, config):
    """dict part -> (wall, processor) seconds, of a process that starts now."""
    command = [sys.executable, __file__, f"--config={config}", "--of", what]
    done = subprocess.run(
        [*command, f"--started={time.time()}"], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise PanopticError(f"{what}: the process has ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


class Parts:
    """The parts of one process, one after the other."""

    def __init__(self, arguments):
        self.config = load_config(arguments.config)
        self.seconds = {}
        self.last = arguments.started, 0.0
        self.end("start")

    def end(self, name):
        """Ends a part: the next one starts."""
        now = time.time(), time.process_time()
        self.seconds[name] = [after - before for before, after in zip(self.last, now, strict=True)]
        self.last = now

    def run(self, what, folder):
        getattr(self, what)(folder)
        self.seconds["all"] = [sum(values) for values in zip(*self.seconds.values(), strict=True)]
        return self.seconds

    def step(self, folder):
        from tf_panoptic_fpn.data.pipeline import training_dataset
        from tf_panoptic_fpn.distribution.graph_rewrites import without_rewrites
        from tf_panoptic_fpn.distribution.replicas import build_strategy
        from tf_panoptic_fpn.models.build_model import build_model
        from tf_panoptic_fpn.training.optimizer import build_optimizer
        from tf_panoptic_fpn.training.step import make_train_step

        self.end("imports")
        config, index = self.index(folder, "train")
        dataset = training_dataset(index, config.data, config.train.batch_size, 4, seed=0)
        batch = next(iter(dataset))
        self.end("data")
        strategy = build_strategy(1)
        with strategy.scope():
            model = build_model(config.model)
            optimizer = build_optimizer(config.optimizer, config.train.steps)
            optimizer.build(model.trainable_variables)
        self.end("model")
        clip_norm = config.optimizer.clip_norm
        step = make_train_step(model, optimizer, strategy, dataset.element_spec, clip_norm)
        with without_rewrites(strategy.extended.worker_devices):  # as `train` does
            step.get_concrete_function()
            self.end("tracing")
            float(step(batch)["total"])
        self.end("first run")

    def prediction(self, folder):
        import numpy as np

        from tf_panoptic_fpn.inference.predictor import Predictor
        from tf_panoptic_fpn.models.build_model import build_model

        self.end("imports")
        config, index = self.index(folder, "validation")
        self.end("data")
        model = build_model(config.model)
        predictor = Predictor(model, index.categories, config.merge, config.data.validation)
        self.end("model")
        predictor.traced.get_concrete_function()
        self.end("tracing")
        predictor(np.zeros((*config.data.shapes.image_size, 3), np.uint8))
        self.end("first run")
        return predictor

    def evaluation(self, folder):
        import tf_panoptic_fpn.evaluation.evaluate_run  # noqa: F401

        self.prediction(folder)

    def export(self, folder):
        from tf_panoptic_fpn.export.saved_model import export_saved_model

        predictor = self.prediction(folder)
        export_saved_model(predictor, folder / "exported")
        self.end("export")

    def index(self, folder, split):
        from tf_panoptic_fpn.data.splits import load_index, resolve_data

        config = resolve_data(self.config, folder)
        return config, load_index(config.data, split, config.model.semantic_things)


if __name__ == "__main__":
    exit_on_error(main)
