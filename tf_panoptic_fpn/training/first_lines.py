"""What a run says of itself before its first step."""

import importlib.metadata
import math
import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_panoptic_fpn.config import TrainConfig
from tf_panoptic_fpn.version import __version__


def first_lines(
    settings: TrainConfig,
    model: keras.Model,
    devices: Sequence[str],
    num_images: int,
    start: int,
) -> str:
    """Returns lines for a terminal: versions, devices, precision, size of the model and of the run.

    Args:
        settings: `TrainConfig`.
        model: the model to train.
        devices: names of all devices, those of other machines among them.
        num_images: int, images of an epoch.
        start: int, steps done.
    """
    versions = {
        "tf_panoptic_fpn": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": importlib.metadata.version("numpy"),
    }
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
    kind = tf.DeviceSpec.from_string(devices[0]).device_type
    compiled = ", compiled by XLA" if settings.jit_compile else ""
    trained = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    epochs = settings.steps * settings.batch_size / num_images
    steps_an_epoch = num_images / settings.batch_size
    rows = {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "devices": f"{len(devices)} x {kind}, {threads} threads; {settings.precision}{compiled}",
        **({"pixels": model.normalize.in_words()} if hasattr(model, "normalize") else {}),
        "parameters": f"{model.count_params():,}, of which {trained:,} are trained",
        "images": f"{num_images:,}; {steps_an_epoch:,.1f} steps of {settings.batch_size} an epoch",
        "steps": f"{start:,} of {settings.steps:,} done, {epochs:,.1f} epochs in all",
    }
    return "\n".join(f"{name:<12} {text}" for name, text in rows.items())
