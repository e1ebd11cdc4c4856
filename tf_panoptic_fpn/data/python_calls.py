"""Calls of Python from the pipeline's threads, for what is rare enough."""

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def python_function(
    function: Callable[..., Any], arguments: Sequence[tf.Tensor], dtype: tf.DType
) -> tf.Tensor:
    """Calls Python from a `tf.data` pipeline, so that its order stays and the program can end.

    Args:
        function: takes NumPy arrays, returns one; called from several threads at once.
        arguments: list of tensors.
        dtype: of the result.

    Returns:
        A tensor of unknown shape.
    """

    def call(*values: Any) -> Any:
        with _calls:
            return function(*values)

    # Declared stateless, since TensorFlow runs stateful functions one by one where it is asked to
    # be deterministic.
    return tf.numpy_function(call, arguments, dtype, stateful=False)


class _CallsFromTensorFlow:
    """Lets TensorFlow's threads finish with Python before the interpreter exits.

    An exiting interpreter waits for the threads of an unfinished pipeline while they wait for its
    lock: without this, a run that is interrupted or stops early never ends.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.latest = 0.0
        self.closed = False
        atexit.register(self.close)

    def __enter__(self) -> None:
        with self.lock:
            self.latest = time.monotonic()
            if self.closed:
                raise RuntimeError("the interpreter is exiting")
            self.running += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.running -= 1

    def close(self) -> None:
        """Refuses new calls, and returns once the pipelines have filled up with refusals."""
        self.closed = True
        while self.running or time.monotonic() - self.latest < 0.1:
            time.sleep(0.01)


_calls = _CallsFromTensorFlow()
