"""The training loop: `train(config, workdir)`."""

import contextlib
import math
import os

import keras
import tensorflow as tf

from tf_panoptic_fpn.config import Config, TrainConfig, save_config
from tf_panoptic_fpn.data.index import DatasetIndex
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.splits import resolve_data
from tf_panoptic_fpn.distribution.replicas import distribute, plain_seeds
from tf_panoptic_fpn.distribution.workers import Workers, start_workers
from tf_panoptic_fpn.errors import DataError, TrainingError
from tf_panoptic_fpn.inference.graph_rewrites import without_rewrites
from tf_panoptic_fpn.models.build_model import build_model
from tf_panoptic_fpn.training.before_training import load_checked_index, read_start
from tf_panoptic_fpn.training.checkpoint import Checkpoints
from tf_panoptic_fpn.training.class_weights import class_weights
from tf_panoptic_fpn.training.first_lines import first_lines
from tf_panoptic_fpn.training.lock import only_run
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.out_of_memory import explaining_memory
from tf_panoptic_fpn.training.precision import build_loss_scale, layer_dtype, rematerialization
from tf_panoptic_fpn.training.progress import expected_end, progress_bar
from tf_panoptic_fpn.training.resume import check_continues
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.save_model import save_model
from tf_panoptic_fpn.training.step import TrainStep, build_train_step
from tf_panoptic_fpn.training.watch import Watch
from tf_panoptic_fpn.training.weight_average import WeightAverage, average_in_use
from tf_panoptic_fpn.weights.initial_weights import InitialWeights, set_initial_weights
from tf_panoptic_fpn.workdir import Workdir


def train(config: Config, workdir: str | os.PathLike, workers: Workers | None = None) -> Config:
    """Trains a model from a configuration, or goes on where an earlier run of it stopped.

    Writes in `workdir`: `config.yaml`, `categories.json`, `metrics.jsonl`, `tensorboard/`,
    `checkpoints/`, with `evaluate.every` `pictures/`, with `evaluate.keep_best` `best.keras`, and
    at the end `model.keras`. All that the run and its evaluation will read is looked at before the
    first step. Of several workers (`TF_CONFIG`, Slurm) the first one writes; the workdir must be a
    folder that all of them have.

    Args:
        config: `Config`.
        workdir: folder; made if absent.
        workers: the `Workers` of `start_workers`, where something comes after the training; by
            default they are started.

    Returns:
        The resolved `Config` (see `resolve_data`).

    Raises:
        ConfigError: if the workdir cannot be written, another run is at work in it, it holds a run
            that cannot go on with these settings, or the data set does not fit the model.
        DataError: if the data set cannot be read.
        WeightsError: if the initial weights cannot be read or do not fit.
        TrainingError: if `train.max_skipped` steps in a row had gradients that are not finite, or
            no checkpoint can be restored, the model cannot be written, or another worker ends or
            does not come.
        StoppedBySignalError: after SIGTERM or SIGUSR1; what is done is saved.
    """
    workdir = Workdir(workdir)
    workers = workers or start_workers(config.train)
    with workers.ending_together(), contextlib.ExitStack() as stack:
        workers.agree_on_start(config)
        with workers.first_ahead():
            workdir.create()
            if workers.is_first:
                stack.enter_context(only_run(workdir))
            config = resolve_data(config, workdir.path)
            check_continues(config, workdir)
            initial = read_start(config, workdir)
            index = load_checked_index(config)
            if workers.is_first:
                save_config(config, workdir.config)
                index.categories.save(workdir.categories)
        workers.agree({"training data": index.digest()})
        _train(config, workdir, index, initial, workers)
    return config


def _train(
    config: Config,
    workdir: Workdir,
    index: DatasetIndex,
    initial: InitialWeights | None,
    workers: Workers,
) -> None:
    """Makes all that a run needs, does its steps and writes the model."""
    strategy = workers.strategy
    settings = config.train
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    with strategy.scope(), tf.variable_creator_scope(plain_seeds), rematerialization(settings):
        model = build_model(config.model, layer_dtype(settings))
        model.class_weights = class_weights(settings.class_weights, index.categories)
        optimizer = build_optimizer(config.optimizer, settings.steps, model.backbone)
        optimizer.build(model.trainable_variables)
        loss_scale = build_loss_scale(settings)
        average = WeightAverage(model, settings.average_decay) if settings.average_decay else None
    state = RunState(loss_scale, average)
    checkpoints = Checkpoints(model, optimizer, workdir.checkpoints, workers.is_first, state=state)
    start = checkpoints.restore()
    workers.agree({"last checkpoint": start})
    if initial:
        set_initial_weights(model, initial, index.categories)
    is_done = start >= settings.steps or state.is_out_of_patience(config.evaluate.patience)
    if is_done and workdir.model.exists():
        return

    devices = strategy.extended.worker_devices
    if workers.is_first:
        print(first_lines(settings, model, devices, len(index), start), flush=True)
    watch = Watch(config, model, optimizer, state, checkpoints, workdir, start, workers)
    dataset = training_dataset(
        index,
        config.data,
        settings.batch_size,
        settings.steps,
        settings.seed,
        start_step=start,
        on_damaged=watch.problems.skip,
        on_error=watch.problems.stop,
        worker=workers.index,
        num_workers=workers.count,
    )
    dataset = distribute(dataset, strategy)
    train_step = build_train_step(
        model, optimizer, strategy, dataset.element_spec, config, start, loss_scale, average
    )
    with watch.begun(), without_rewrites():
        run_steps(settings, start, dataset, train_step, watch)
    if workers.is_first:
        with average_in_use(average):
            save_model(model, workdir.model)
    workers.wait()


def run_steps(
    settings: TrainConfig,
    start: int,
    dataset: tf.distribute.DistributedDataset,
    train_step: TrainStep,
    watch: Watch,
) -> None:
    """Does the steps `start + 1` to `settings.steps`; the arguments are what `train` makes."""
    log, validation, checkpoints = watch.log, watch.validation, watch.checkpoints
    batches = iter(dataset)
    window = []
    done = start
    try:
        with progress_bar(settings, start) as progress:
            validation.run_if_due(start)  # if that was interrupted
            watch.share()
            while done < settings.steps and not validation.is_out_of_patience:
                with watch.profile.of(done + 1):
                    with log.timed("data"), watch.problems.explaining():
                        batch = next(batches)
                    with explaining_memory(settings, watch.model, batch):
                        window.append(train_step(batch))
                done += 1
                watch.skipped.add(done, batch, window[-1])
                progress.update(settings.batch_size)
                validation.run_if_due(done)
                watch.share()
                is_last = (
                    done == settings.steps
                    or validation.is_out_of_patience
                    or watch.signals.received is not None
                )
                if done % settings.log_every == 0 or is_last:
                    with log.timed("log"):
                        damaged = len(watch.problems.reasons)
                        means = log.write(done, window, settings.batch_size, damaged)
                    loss = f"{means.get('total', math.nan):.3f}"
                    progress.set_postfix(loss=loss, end=expected_end(progress))
                    window = []
                if done % settings.checkpoint_every == 0 or is_last:
                    with log.timed("checkpoint"):
                        watch.skipped.look()
                        checkpoints.save(done)
                watch.signals.check()
    except (DataError, TrainingError):
        checkpoints.save(done)
        raise
    finally:
        # An iterator whose threads still load images would hang the interpreter at its end.
        del batches
