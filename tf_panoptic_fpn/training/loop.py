"""The training loop: `train(config, workdir)`."""

import json
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tf_panoptic_fpn import build
from tf_panoptic_fpn.config import load_config, save_config
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.models.panoptic_fpn import TASKS
from tf_panoptic_fpn.training.checkpoint import Checkpoints
from tf_panoptic_fpn.training.step import alternate_steps, make_train_step
from tf_panoptic_fpn.workdir import Workdir


class TrainingError(PanopticError):
    """Training cannot go on."""


def train(config, workdir):
    """Trains a model from a configuration, or goes on where an earlier run of it stopped.

    Writes in `workdir`: `config.yaml`, `categories.json`, `metrics.jsonl`, `tensorboard/`,
    `checkpoints/` and, at the end, `model.keras`.

    Args:
        config: `Config`.
        workdir: folder; made if absent.

    Returns:
        The resolved `Config` (see `build.resolve_data`).

    Raises:
        ConfigError: if the workdir cannot be written, holds a run of another model, or the data
            set does not fit the model.
        DataError: if the data set cannot be read.
        TrainingError: if no step between two log lines had finite gradients.
    """
    workdir = Workdir(workdir)
    workdir.create()
    config = build.resolve_data(config, workdir.path)
    _check_same_model(config, workdir)
    index = build.load_index(config.data, "train", config.model.semantic_things)
    build.check_categories(config, index.categories, config.data.train.panoptic_json)
    save_config(config, workdir.config)
    index.categories.save(workdir.categories)

    settings = config.train
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = build.build_strategy(settings.replicas)
    if settings.jit_compile and strategy.num_replicas_in_sync > 1:
        raise ConfigError("`train.jit_compile` takes a single replica")
    with strategy.scope():
        model = build.build_model(config)
        optimizer = build.build_optimizer(config.optimizer)
        optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(model, optimizer, workdir.checkpoints)
    start = checkpoints.restore()
    if start == 0:
        build.load_initial_weights(model, settings)
    if start < settings.steps:
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
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        dataset = strategy.experimental_distribute_dataset(dataset.with_options(options))
        alternating = settings.loss_schedule == "alternating"
        train_steps = [
            make_train_step(
                model,
                optimizer,
                strategy,
                dataset.element_spec,
                config.optimizer.clip_norm,
                settings.jit_compile,
                tasks,
            )
            for tasks in (TASKS if alternating else [config.model.tasks])
        ]
        train_step = alternate_steps(train_steps, start)
        log = MetricsLog(workdir, start, optimizer)
        _run(settings, dataset, train_step, checkpoints, start, log, problems)
    _save_model(model, workdir.model)
    return config


def _check_same_model(config, workdir):
    if not workdir.config.exists() or not workdir.checkpoints.exists():
        return
    earlier = load_config(workdir.config)
    for section in ("model", "optimizer"):
        old, new = getattr(earlier, section), getattr(config, section)
        for key in vars(old):
            if getattr(old, key) != getattr(new, key):
                raise ConfigError(
                    f"{workdir.config}: the workdir holds a run with `{section}.{key}` = "
                    f"{getattr(old, key)!r}; use another workdir. Received: {getattr(new, key)!r}"
                )


def _run(settings, dataset, train_step, checkpoints, start, log, problems):
    batches = iter(dataset)
    progress = tqdm(
        total=settings.steps * settings.batch_size,
        initial=start * settings.batch_size,
        unit="image",
        desc="train",
        mininterval=1.0,
        dynamic_ncols=True,
    )
    window = []
    try:
        for step in range(start + 1, settings.steps + 1):
            window.append(train_step(next(batches)))
            progress.update(settings.batch_size)
            if step % settings.log_every == 0 or step == settings.steps:
                means = log.write(step, window, settings.batch_size, len(problems.reasons))
                progress.set_postfix(loss=f"{means['total']:.3f}")
                window = []
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                checkpoints.save(step)
    except tf.errors.OpError:
        if problems.error is not None:
            raise problems.error from None
        raise
    finally:
        # An iterator whose threads still load images would hang the interpreter at its end.
        del batches
        progress.close()
        log.close()


class DataProblems:
    """What is wrong with the data: damaged images, skipped and logged once each, or an error."""

    def __init__(self):
        self.reasons = {}  # path of a damaged image -> why
        self.error = None

    def skip(self, path, reason):
        if path not in self.reasons:
            self.reasons[path] = reason
            logging.warning("skipped a damaged image: %s", reason)

    def stop(self, error):
        self.error = error


class MetricsLog:
    """Means over the steps since the last line, to `metrics.jsonl` and TensorBoard.

    Args:
        workdir: `Workdir`.
        start: steps done; lines after it, of an interrupted run, are dropped.
        optimizer: gives the learning rate.
    """

    def __init__(self, workdir, start, optimizer):
        self.path = workdir.metrics
        self.optimizer = optimizer
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            kept = [line for line in lines if _is_step_up_to(line, start)]
            self.path.write_text("".join(f"{line}\n" for line in kept))
        self.summary = tf.summary.create_file_writer(str(workdir.tensorboard))
        self.last_time = time.perf_counter()

    def write(self, step, window, batch_size, damaged_images):
        """Writes the means over `window`, a list of the train step's dicts; returns them."""
        is_finite = np.array([float(row["is_finite"]) > 0 for row in window])
        if not is_finite.any():
            raise TrainingError(
                f"No gradient was finite in the {len(window)} steps up to {step}: lower "
                "`optimizer.learning_rate` or set `optimizer.clip_norm`"
            )
        finite_rows = [row for row, finite in zip(window, is_finite, strict=True) if finite]
        means = {}
        for name in dict.fromkeys(name for row in finite_rows for name in row):
            # With alternating losses a row has those of one task.
            means[name] = float(np.mean([float(row[name]) for row in finite_rows if name in row]))
        del means["is_finite"]
        now = time.perf_counter()
        line = {
            "step": step,
            "loss": {name: value for name, value in means.items() if name != "gradient_norm"},
            "gradient_norm": means["gradient_norm"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)),
            "images_per_second": len(window) * batch_size / (now - self.last_time),
            "skipped_steps": int((~is_finite).sum()),
            "damaged_images": damaged_images,
        }
        self.last_time = now
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        with self.summary.as_default(step=step):
            for name, value in line["loss"].items():
                tf.summary.scalar(f"loss/{name}", value)
            for name in ("gradient_norm", "learning_rate", "images_per_second"):
                tf.summary.scalar(name, line[name])
        return means

    def close(self):
        self.summary.close()


def _is_step_up_to(line, start):
    try:
        return json.loads(line)["step"] <= start
    except (ValueError, KeyError, TypeError):
        return False  # a line cut short by a crash


def _save_model(model, path):
    """Writes the model beside `path` first, so that a crash never leaves half a file."""
    partial = path.with_name(f"partial_{path.name}")
    model.save(partial)
    partial.replace(path)
