"""The training loop: `train(config, workdir)`."""

import keras
import tensorflow as tf
from tqdm import tqdm

from tf_panoptic_fpn.config import load_config, save_config
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.splits import check_categories, load_index, resolve_data
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.build_model import build_model
from tf_panoptic_fpn.models.panoptic_fpn import TASKS
from tf_panoptic_fpn.training.checkpoint import Checkpoints
from tf_panoptic_fpn.training.data_problems import DataProblems
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.replicas import build_strategy
from tf_panoptic_fpn.training.step import alternate_steps, make_train_step
from tf_panoptic_fpn.weights.initial_weights import load_initial_weights
from tf_panoptic_fpn.workdir import Workdir


def train(config, workdir):
    """Trains a model from a configuration, or goes on where an earlier run of it stopped.

    Writes in `workdir`: `config.yaml`, `categories.json`, `metrics.jsonl`, `tensorboard/`,
    `checkpoints/` and, at the end, `model.keras`.

    Args:
        config: `Config`.
        workdir: folder; made if absent.

    Returns:
        The resolved `Config` (see `resolve_data`).

    Raises:
        ConfigError: if the workdir cannot be written, holds a run of another model, or the data
            set does not fit the model.
        DataError: if the data set cannot be read.
        TrainingError: if no step between two log lines had finite gradients.
    """
    workdir = Workdir(workdir)
    workdir.create()
    config = resolve_data(config, workdir.path)
    _check_same_model(config, workdir)
    index = load_index(config.data, "train", config.model.semantic_things)
    check_categories(config, index.categories, config.data.train.panoptic_json)
    save_config(config, workdir.config)
    index.categories.save(workdir.categories)

    settings = config.train
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = build_strategy(settings.replicas)
    if settings.jit_compile and strategy.num_replicas_in_sync > 1:
        raise ConfigError("`train.jit_compile` takes a single replica")
    with strategy.scope():
        model = build_model(config.model)
        optimizer = build_optimizer(config.optimizer)
        optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(model, optimizer, workdir.checkpoints)
    start = checkpoints.restore()
    if start == 0:
        load_initial_weights(model, settings)
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


def _save_model(model, path):
    """Writes the model beside `path` first, so that a crash never leaves half a file."""
    partial = path.with_name(f"partial_{path.name}")
    model.save(partial)
    partial.replace(path)
