"""Rows of tables."""

import keras
from keras import ops

from tf_panoptic_fpn.schema import Tensor


def take_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Takes rows by index, for each image its own; indices are not negative.

    On TensorFlow one kernel: `ops.take_along_axis` makes some 40 nodes, and copies of `x` and of
    the indices at their common shape.

    Args:
        x: `[..., n, *row]`.
        indices: int `[..., m]`, 0 to n - 1, of the same leading axes.

    Returns:
        `[..., m, *row]`, the dtype of `x`.
    """
    axis = len(indices.shape) - 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, indices, batch_dims=axis)
    extra = len(x.shape) - len(indices.shape)
    return ops.take_along_axis(x, ops.reshape(indices, [*indices.shape, *[1] * extra]), axis=axis)


def look_up(table: Tensor, indices: Tensor) -> Tensor:
    """Returns `table[indices]`; indices are not negative.

    On TensorFlow one kernel: `ops.take` reads the indices three times more, to count negative ones
    from the end.

    Args:
        table: `[n, *row]`.
        indices: int, of any shape, 0 to n - 1.

    Returns:
        `[*indices.shape, *row]`, the dtype of `table`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(table, indices)
    return ops.take(table, indices, axis=0)
