"""The training loop: `train(config, workdir)`."""

import contextlib
import math
import os

import keras
import tensorflow as tf

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.config import Config, TrainConfig, save_config
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.splits import resolve_data
from tf_panoptic_fpn.models.build_model import build_model
from tf_panoptic_fpn.training.before_training import load_checked_index, read_start
from tf_panoptic_fpn.training.checkpoint import Checkpoints
from tf_panoptic_fpn.training.class_weights import class_weights
from tf_panoptic_fpn.training.data_problems import DataProblems
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.optimizer import build_optimizer, last_rate
from tf_panoptic_fpn.training.precision import (
    build_loss_scale,
    layer_dtype,
    rematerialization,
)
from tf_panoptic_fpn.training.progress import progress_bar
from tf_panoptic_fpn.training.replicas import build_strategy, distribute
from tf_panoptic_fpn.training.resume import check_continues
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.skipped_steps import SkippedSteps
from tf_panoptic_fpn.training.step import TrainStep, build_train_step
from tf_panoptic_fpn.training.weight_average import WeightAverage, average_in_use
from tf_panoptic_fpn.weights.initial_weights import set_initial_weights
from tf_panoptic_fpn.workdir import Workdir


def train(config: Config, workdir: str | os.PathLike) -> Config:
    """Trains a model from a configuration, or goes on where an earlier run of it stopped.

    Writes in `workdir`: `config.yaml`, `categories.json`, `metrics.jsonl`, `tensorboard/`,
    `checkpoints/` and, at the end, `model.keras`. All that the run and its evaluation will read is
    looked at before the first step.

    Args:
        config: `Config`.
        workdir: folder; made if absent.

    Returns:
        The resolved `Config` (see `resolve_data`).

    Raises:
        ConfigError: if the workdir cannot be written, holds a run that cannot go on with these
            settings, or the data set does not fit the model.
        DataError: if the data set cannot be read.
        WeightsError: if the initial weights cannot be read or do not fit.
        TrainingError: if `train.max_skipped` steps in a row had gradients that are not finite, or
            no checkpoint can be restored.
    """
    workdir = Workdir(workdir)
    workdir.create()
    config = resolve_data(config, workdir.path)
    check_continues(config, workdir)
    initial = read_start(config, workdir)
    index = load_checked_index(config)
    save_config(config, workdir.config)
    index.categories.save(workdir.categories)

    settings = config.train
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = build_strategy(settings.replicas)
    with strategy.scope(), rematerialization(settings):
        model = build_model(config.model, layer_dtype(settings))
        model.class_weights = class_weights(settings.class_weights, index.categories)
        optimizer = build_optimizer(config.optimizer, settings.steps)
        optimizer.build(model.trainable_variables)
        loss_scale = build_loss_scale(settings)
        average = WeightAverage(model, settings.average_decay) if settings.average_decay else None
    state = RunState(loss_scale, average)
    checkpoints = Checkpoints(model, optimizer, workdir.checkpoints, state=state)
    start = checkpoints.restore()
    if initial:
        set_initial_weights(model, initial, index.categories)
    if start >= settings.steps and workdir.model.exists():
        return config

    problems = DataProblems()
    dataset = training_dataset(
        index,
        config.data,
        settings.batch_size,
        settings.steps,
        settings.seed,
        start_step=start,
        on_damaged=problems.skip,
        on_error=problems.stop,
    )
    dataset = distribute(dataset, strategy)
    train_step = build_train_step(
        model, optimizer, strategy, dataset.element_spec, config, start, loss_scale, average
    )
    skipped = SkippedSteps(state, settings.max_skipped, workdir)
    log = MetricsLog(workdir, start, lambda step: last_rate(optimizer))
    with contextlib.closing(log), contextlib.closing(checkpoints), problems.explaining():
        run_steps(settings, start, dataset, train_step, skipped, log, problems, checkpoints)
    with average_in_use(average), replacing(workdir.model) as file:
        model.save(file)
    return config


def run_steps(
    settings: TrainConfig,
    start: int,
    dataset: tf.distribute.DistributedDataset,
    train_step: TrainStep,
    skipped: SkippedSteps,
    log: MetricsLog,
    problems: DataProblems,
    checkpoints: Checkpoints,
) -> None:
    """Does the steps `start + 1` to `settings.steps`; the arguments are what `train` makes."""
    batches = iter(dataset)
    window = []
    try:
        with progress_bar(settings, start) as progress:
            for step in range(start + 1, settings.steps + 1):
                is_last = step == settings.steps
                batch = next(batches)
                window.append(train_step(batch))
                skipped.add(step, batch, window[-1])
                progress.update(settings.batch_size)
                if step % settings.log_every == 0 or is_last:
                    means = log.write(step, window, settings.batch_size, len(problems.reasons))
                    progress.set_postfix(loss=f"{means.get('total', math.nan):.3f}")
                    window = []
                if step % settings.checkpoint_every == 0 or is_last:
                    skipped.look()
                    checkpoints.save(step)
    finally:
        # An iterator whose threads still load images would hang the interpreter at its end.
        del batches
