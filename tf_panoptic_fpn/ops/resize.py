"""Bilinear resizing of feature maps."""

import keras
from keras import ops

from tf_panoptic_fpn.ops.precision import full_precision
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor


def resize_bilinear(x: Tensor, size: Tensor) -> Tensor:
    """Resizes with half-pixel centres, without antialiasing.

    Args:
        x: float `[B, h, w, C]`.
        size: `(height, width)`, ints or, on TensorFlow, int32 scalars or a tensor `[2]`.

    Returns:
        float `[B, height, width, C]`, the dtype of `x`.
    """
    if keras.backend.backend() == "tensorflow":  # `keras.ops` takes static sizes only
        import tensorflow as tf

        if x.dtype == "float64":  # TensorFlow's kernel gives float32 whatever it is given
            return _resize_by_products(x, size)
        # As XLA's kernel of the gradient wants it: of other dtypes it makes float32 all the same.
        x32 = full_precision(x)
        resized = tf.raw_ops.ResizeBilinear(images=x32, size=size, half_pixel_centers=True)
        return tf.cast(resized, x.dtype)
    return ops.image.resize(
        x, size, interpolation="bilinear", antialias=False, data_format="channels_last"
    )


def upsample_bilinear(x: Tensor, factor: int) -> Tensor:
    """Resizes `[B, h, w, C]` to `[B, factor h, factor w, C]` with `resize_bilinear`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return resize_bilinear(x, tf.shape(x)[1:3] * factor)
    height, width = sides(x)[1:3]
    return resize_bilinear(x, (height * factor, width * factor))


def _resize_by_products(x: Tensor, size: Tensor) -> Tensor:
    """`resize_bilinear` as a matrix product along each axis."""
    _, height, width, _ = sides(x)
    rows = bilinear_weights(height, size[0], x.dtype)
    columns = bilinear_weights(width, size[1], x.dtype)
    return ops.einsum("Xx,bYxc->bYXc", columns, ops.einsum("Yy,byxc->bYxc", rows, x))


def bilinear_weights(
    extent: Tensor,
    new_extent: Tensor,
    dtype: str,
    cells: int | None = None,
    points: int | None = None,
) -> Tensor:
    """How much each cell of an axis weighs in each cell of the resized axis.

    Args:
        extent: int, cells of the axis.
        new_extent: int, cells of the resized axis.
        dtype: of the weights.
        cells: int, columns to return, by default `extent`; those from `extent` on are 0.
        points: int, rows to return, by default `new_extent`; those from there on mean nothing.

    Returns:
        float `[points, cells]`.
    """
    places = ops.cast(ops.arange(extent if cells is None else cells, dtype="int32"), dtype)
    centers = ops.cast(ops.arange(new_extent if points is None else points, dtype="int32"), dtype)
    extent = ops.cast(extent, dtype)
    scale = extent / ops.cast(new_extent, dtype)
    centers = ops.minimum(ops.maximum((centers + 0.5) * scale - 0.5, 0), extent - 1)
    return ops.relu(1 - ops.abs(centers[:, None] - places))
