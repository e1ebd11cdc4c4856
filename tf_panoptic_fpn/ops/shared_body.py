"""Functions that are called in many places of a graph and have one body there."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.schema import Tensor


def call_shared(function: Callable, *tensors: Tensor, **settings: Any) -> Any:
    """Calls a function; in a TensorFlow graph by a body that all of its calls share.

    A graph is made operation by operation, in half a millisecond each. A body is made once in a
    process, for all of its graphs: training, validation, prediction and export.

    Args:
        function: of a module, not a closure; it must not count on static shapes.
        *tensors: what it works on, tensors, or numbers that stand for them.
        **settings: hashable values. There is a body for each of them, and for the dtypes and ranks
            of the tensors.

    Returns:
        What the function returns; in a graph without static sides.
    """
    if not _makes_a_graph():
        return function(*tensors, **settings)
    import tensorflow as tf

    tensors = tuple(map(tf.convert_to_tensor, tensors))
    kinds = tuple((tensor.dtype, tensor.shape.rank) for tensor in tensors)
    return _traced(function, kinds, tuple(settings.items()))(*tensors)


def _makes_a_graph() -> bool:
    if keras.backend.backend() != "tensorflow" or not use_tensorflow_kernels():
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


@functools.cache
def _traced(function: Callable, kinds: tuple, settings: tuple) -> Callable:
    import tensorflow as tf

    specs = [tf.TensorSpec([None] * rank, dtype) for dtype, rank in kinds]
    return tf.function(
        functools.partial(function, **dict(settings)), input_signature=specs, autograph=False
    )
