"""Grappler, which rewrites TensorFlow's graphs before they first run."""

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

OFF = "disable_meta_optimizer"


@contextlib.contextmanager
def without_rewrites(devices: Sequence[str]) -> Iterator[None]:
    """Has what is first called in the block run as it was traced, unless on a GPU.

    On processors the rewrites take a third of the time to the end of the first step and make no
    later step faster; for GPUs they choose layouts.

    Args:
        devices: names of the replicas' devices.
    """
    if any("GPU" in device for device in devices):
        yield
        return
    before = tf.config.optimizer.get_experimental_options().get(OFF, False)
    tf.config.optimizer.set_experimental_options({OFF: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({OFF: before})
