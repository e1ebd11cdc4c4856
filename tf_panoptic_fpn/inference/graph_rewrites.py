"""Grappler, which rewrites TensorFlow's graphs before they first run."""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

OFF = "disable_meta_optimizer"
_lock = threading.Lock()
_inside: list[bool] = []  # of each block that a thread is in, what was set before the first


@contextlib.contextmanager
def without_rewrites() -> Iterator[None]:
    """Has graphs that are called in the block run as they were traced, unless there is a GPU.

    On processors the rewrites take a third of the time to the end of the first step or prediction
    and make no later one faster; for GPUs they choose layouts. A graph that is called in such a
    block and elsewhere is prepared twice.
    """
    if tf.config.list_physical_devices("GPU"):
        yield
        return
    with _lock:
        before = tf.config.optimizer.get_experimental_options().get(OFF, False)
        _inside.append(_inside[0] if _inside else before)
        tf.config.optimizer.set_experimental_options({OFF: True})
    try:
        yield
    finally:
        with _lock:
            before = _inside.pop()
            tf.config.optimizer.set_experimental_options({OFF: before or bool(_inside)})
