"""The shape of a tensor, and a sum of maps of one shape, in few operations."""

import keras

from tf_panoptic_fpn.schema import Tensor


def sides(x: Tensor) -> tuple:
    """Returns the shape of a tensor: ints, and int32 scalars where a side is not known.

    On TensorFlow two operations; `keras.ops.shape` makes four of each side.
    """
    shape = tuple(x.shape)
    if None not in shape or isinstance(x, keras.KerasTensor):
        return shape
    import tensorflow as tf  # elsewhere sides are known

    unknown = tf.unstack(tf.shape(x))
    return tuple(b if a is None else a for a, b in zip(shape, unknown, strict=True))


def add_maps(*maps: Tensor) -> Tensor:
    """Adds tensors of one shape and dtype.

    The gradient of a TensorFlow `+` reads both shapes, in seven operations, to find out that they
    are one.
    """
    if keras.backend.backend() == "tensorflow" and not isinstance(maps[0], keras.KerasTensor):
        import tensorflow as tf

        return tf.add_n(maps)
    return sum(maps[1:], maps[0])
