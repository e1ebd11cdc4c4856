"""What may change between a run and its continuation, and what may not."""

from collections.abc import Mapping
from typing import Any

from absl import logging

from tf_panoptic_fpn.config import Config, load_run_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.workdir import Workdir

# What the weights and the draws of the steps done depend on. Steps, schedule, logging, paths,
# replicas and evaluation may change.
FIXED = (
    "model.",
    "optimizer.momentum",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "optimizer.algorithm",
    "optimizer.backbone_lr_factor",
    "train.average_decay",
    "train.batch_size",
    "train.class_weights",
    "train.precision",
    "train.seed",
    "train.loss_schedule",
)


def check_continues(config: Config, workdir: Workdir) -> None:
    """Compares a configuration with that of the run in a workdir, if there is one.

    What changed and may is said in the log.

    Args:
        config: `Config`, resolved.
        workdir: `Workdir`.

    Raises:
        ConfigError: if a value that may not change has changed.
    """
    if not workdir.config.exists() or not workdir.checkpoints.exists():
        return
    old, new = (_flat(c.model_dump()) for c in (load_run_config(workdir.config), config))
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) == new.get(key):
            continue
        if key.startswith(FIXED):
            raise ConfigError(
                f"{workdir.config}: the workdir holds a run with `{key}` = {old.get(key)!r}; use "
                f"another workdir. Received: {new.get(key)!r}"
            )
        if not key.startswith("data.shapes"):
            logging.warning("goes on with `%s` = %r, before %r", key, new.get(key), old.get(key))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one: dotted key -> value."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat
