"""Seconds and memory of a training step, stage by stage.

python benchmarks/train_step.py --config=configs/camvid.yaml [--set data.root=FOLDER] [--rounds=20]
python benchmarks/train_step.py --config=coco_r50_1x --image-size=800,1216 [--rounds=3]

The first takes batches of the configuration's data; one with drawn shapes draws them to a temporary
folder. The second takes one batch of one image, with ground truth where the untrained model looks
for it, so that all masks are trained that may be: no data is needed. "gradients" is the forward and
the backward pass, "step" these and the optimizer.
"""

import argparse
import itertools
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
import tensorflow as tf
from busy_model import build_busy_model, busy_batch, make_image
from graph_size import BATCH_SPEC

from tf_panoptic_fpn import build_model, load_config
from tf_panoptic_fpn.analysis.costs import count_costs
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.splits import load_index, resolve_data
from tf_panoptic_fpn.distribution.replicas import build_strategy
from tf_panoptic_fpn.errors import ConfigError, exit_on_error
from tf_panoptic_fpn.inference.graph_rewrites import without_rewrites
from tf_panoptic_fpn.models.panoptic_fpn import FOREGROUND
from tf_panoptic_fpn.training.gradients import MODEL_INPUTS, losses_and_gradients
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.precision import build_loss_scale, layer_dtype, rematerialization
from tf_panoptic_fpn.training.step import build_train_step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--rounds", "--steps", type=int, default=20)
    parser.add_argument("--image-size", metavar="H,W", help="one image, and no data")
    parser.add_argument("--only-steps", action="store_true", help="whole steps, no stages")
    parser.add_argument("--instances", type=int, default=128, help="of the image, if it is one")
    arguments = parser.parse_args()
    line = {"benchmark": "train_step", **measure.machine("tensorflow", "keras")}
    with tempfile.TemporaryDirectory() as folder:  # for drawn shapes
        stages, costs, figures = run(arguments, folder)
    medians = stages.medians()
    whole = medians["step"]
    line |= {"config": arguments.config, "set": arguments.set, **figures}
    line |= {"seconds": whole["wall"], "processor_seconds": whole["cpu"]}
    for name in medians.keys() & {"wait", "forward"}:
        line[f"{name}_share"] = medians[name]["wall"] / whole["wall"]
    # Of the backward pass, twice those of the forward pass where all of it is trained.
    forward = line["batch_size"] * costs["total"].multiply_adds
    counted = {"forward": forward} if "forward" in medians else {}
    measure.report(line, stages, counted)


def run(arguments, folder):
    """Returns the `Stages`, the costs of the forward pass for an image, and figures."""
    config = load_config(arguments.config, arguments.set)
    strategy = build_strategy(1)
    if arguments.image_size is None:
        config = resolve_data(config, folder)
        model = make_model(config, strategy)
        dataset = pipeline(config, arguments.rounds)
        batches, spec = iter(dataset), dataset.element_spec
    else:
        image = make_image(*image_size(arguments.image_size))
        data = {"max_instances": max(arguments.instances, config.data.max_instances)}
        config = config.model_copy(update={"data": config.data.model_copy(update=data)})
        model = make_model(config, strategy, image)
        batches, spec = (
            itertools.repeat(busy_batch(model, image, config, arguments.instances)),
            BATCH_SPEC,
        )
    stages, figures = time_steps(model, batches, spec, strategy, config, arguments)
    return stages, count_costs(model, figures["canvas"]), figures


def image_size(text):
    try:
        height, width = map(int, text.split(","))
    except ValueError:
        raise ConfigError(f"--image-size must be H,W. Received: {text!r}") from None
    return height, width


def make_model(config, strategy, image=None):
    with strategy.scope(), rematerialization(config.train):
        if image is None:
            return build_model(config.model, layer_dtype(config.train))
        return build_busy_model(config.model, image)


def pipeline(config, rounds):
    index = load_index(config.data, "train", config.model.semantic_things)
    return training_dataset(index, config.data, config.train.batch_size, rounds + 1, seed=0)


def time_steps(model, batches, spec, strategy, config, arguments):
    with strategy.scope():
        optimizer = build_optimizer(config.optimizer, config.train.steps)
        optimizer.build(model.trainable_variables)
    loss_scale = build_loss_scale(config.train)
    differentiate = losses_and_gradients(model, 1, loss_scale=loss_scale)
    functions = {"forward": lambda batch: losses_of(model, batch), "gradients": differentiate}
    functions = {
        name: tf.function(function, input_signature=[spec], autograph=False)
        for name, function in functions.items()
        if not arguments.only_steps
    }
    train_step = build_train_step(model, optimizer, strategy, spec, config, 0, loss_scale)
    stages = measure.Stages()
    with without_rewrites():  # as `train` does
        for round_ in range(arguments.rounds + 1):
            clock = stages if round_ else measure.Stages()  # the first is tracing
            batch = clock.run("wait", next, batches)
            for name, function in functions.items():
                clock.run(name, function, batch)
            measure.forget_peak_memory()
            row = clock.run("step", train_step, batch)
            peak = measure.peak_memory()
    count, *canvas = batch["images"].shape[:3]
    figures = {"batch_size": count, "canvas": canvas, "peak_mb": peak}
    counts = {name: int(row[name]) for name in FOREGROUND if name in row}
    return stages, {**figures, **counts}


def losses_of(model, batch):
    dense = model({name: batch[name] for name in MODEL_INPUTS}, training=True)
    losses = model.weighted_losses(model.loss_terms(dense, batch))
    return sum(losses.values())


if __name__ == "__main__":
    exit_on_error(main)
