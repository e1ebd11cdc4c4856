"""Seconds and memory of a training step, and the shares of the forward pass and of the data's wait.

python benchmarks/train_step.py --config=configs/camvid.yaml [--set data.root=FOLDER] [--steps=20]

A configuration with drawn shapes draws them to a temporary folder.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from tf_panoptic_fpn import build_model, load_config
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.splits import load_index, resolve_data
from tf_panoptic_fpn.distribution.graph_rewrites import without_rewrites
from tf_panoptic_fpn.distribution.replicas import build_strategy
from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.training.gradients import MODEL_INPUTS
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.precision import build_loss_scale, layer_dtype, rematerialization
from tf_panoptic_fpn.training.step import build_train_step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:  # for drawn shapes
        line = measure(arguments, folder)
    print(json.dumps(line))


def measure(arguments, folder):
    config = resolve_data(load_config(arguments.config, arguments.set), folder)
    index = load_index(config.data, "train", config.model.semantic_things)
    strategy = build_strategy(1)
    with strategy.scope(), rematerialization(config.train):
        model = build_model(config.model, layer_dtype(config.train))
        optimizer = build_optimizer(config.optimizer, config.train.steps)
        optimizer.build(model.trainable_variables)
        loss_scale = build_loss_scale(config.train)
    batch_size, warm_up = config.train.batch_size, 3
    dataset = training_dataset(index, config.data, batch_size, arguments.steps + warm_up, seed=0)
    spec = dataset.element_spec
    train_step = build_train_step(model, optimizer, strategy, spec, config, 0, loss_scale)

    @tf.function(input_signature=[spec])
    def forward(batch):
        dense = model({name: batch[name] for name in MODEL_INPUTS}, training=True)
        return sum(model.weighted_losses(model.loss_terms(dense, batch)).values())

    times = {"wait": [], "forward": [], "step": []}
    processor = []
    batches = iter(dataset)
    with without_rewrites(strategy.extended.worker_devices):  # as `train` does
        for _ in range(arguments.steps + warm_up):
            marks = [time.perf_counter()]
            batch = next(batches)
            marks.append(time.perf_counter())
            float(forward(batch))
            marks.append(time.perf_counter())
            before = time.process_time()
            float(train_step(batch)["total"])
            processor.append(time.process_time() - before)
            marks.append(time.perf_counter())
            for name, (start, end) in zip(times, itertools.pairwise(marks), strict=True):
                times[name].append(end - start)
    medians = {name: statistics.median(values[warm_up:]) for name, values in times.items()}
    return {
        "benchmark": "train_step",
        "config": arguments.config,
        "batch_size": batch_size,
        "seconds": round(medians["step"], 3),
        "processor_seconds": round(statistics.median(processor[warm_up:]), 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "forward_share": round(medians["forward"] / medians["step"], 6),
        "wait_share": round(medians["wait"] / medians["step"], 6),
    }


if __name__ == "__main__":
    exit_on_error(main)
