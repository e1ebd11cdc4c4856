"""The semantic map of an image, tile by tile, so that no logits are held at its size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.ops.canvas import RUN, RunCanvas, Window
from tf_panoptic_fpn.ops.resize import resize_bilinear, upsample_bilinear

TILE = 3 * RUN  # pixels, the side of a tile
UPSAMPLING = 4  # of the semantic branch's logits, to the size that the network reads


class Points(NamedTuple):
    """Where pixels lie between the pixels of a smaller or larger image, along an axis."""

    lower: tf.Tensor
    upper: tf.Tensor
    share: tf.Tensor  # of the upper one


def semantic_map(
    logits: tf.Tensor,
    size: tf.Tensor,
    original: tf.Tensor,
    class_shares: Sequence[float] | None = None,
) -> tf.Tensor:
    """The best class of each pixel, as if the logits had been resized to the image as a whole.

    See `resized_logits`, whose arithmetic this is. Of each tile the classes alone are resized
    that can win in it: a bilinear value lies between those around it, so that a class cannot whose
    highest value near is below the lowest of another.

    Args:
        logits: float `[h, w, S]`, of one image.
        size: int32 `[2]`, of the image as the network reads it.
        original: int32 `[2]`, of the image.
        class_shares: see `balance_classes`, or None.

    Returns:
        int32 `[H0, W0]`.
    """
    canvas = RunCanvas((original[0], original[1]))
    offsets = None if class_shares is None else log_shares(class_shares)
    can_win = _can_win(logits if offsets is None else logits - offsets)
    tiles_across = -(-original[1] // TILE)
    count = -(-original[0] // TILE) * tiles_across

    def label_tile(index: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        top, left = index // tiles_across * TILE, index % tiles_across * TILE
        height = tf.minimum(TILE, original[0] - top)
        width = tf.minimum(TILE, canvas.runs * RUN - left)
        rows = _sources(top, height, size[0], original[0])
        columns = _sources(left, width, size[1], original[1])
        labels = canvas.write(
            labels,
            Window(top, left, height, width),
            _best_classes(logits, can_win, rows, columns, offsets),
        )
        return index + 1, labels

    _, labels = tf.while_loop(
        lambda index, _: index < count,
        label_tile,
        (tf.constant(0), canvas.blank()),
        parallel_iterations=1,
    )
    return canvas.whole(labels)


def resized_logits(logits: tf.Tensor, size: tf.Tensor, original: tf.Tensor) -> tf.Tensor:
    """The logits at the size of the image, of all classes: float `[H0, W0, S]`.

    Args:
        logits, size, original: see `semantic_map`.
    """
    upsampled = upsample_bilinear(logits[None], UPSAMPLING)
    return resize_bilinear(upsampled[:, : size[0], : size[1]], original)[0]


def log_shares(class_shares: Sequence[float]) -> np.ndarray:
    """Float32 `[S]`, what `balance_classes` takes from the logits; inf for a share of 0."""
    shares = np.asarray(class_shares, np.float32)
    return np.log(np.where(shares > 0, shares, np.inf))


def _best_classes(
    logits: tf.Tensor,
    can_win: tf.Tensor,
    rows: Points,
    columns: Points,
    offsets: np.ndarray | None,
) -> tf.Tensor:
    """int32 `[height, width]`, the best classes at points of the upsampled logits."""
    (top, rows), (left, columns) = _from_first(rows), _from_first(columns)
    up_rows, up_columns = (
        _sources(first, points.upper[-1] + 1, extent, extent * UPSAMPLING)
        for first, points, extent in (
            (top, rows, tf.shape(logits)[0]),
            (left, columns, tf.shape(logits)[1]),
        )
    )
    (top, up_rows), (left, up_columns) = _from_first(up_rows), _from_first(up_columns)
    begin = [top, left, 0]
    extent = [up_rows.upper[-1] + 1, up_columns.upper[-1] + 1, -1]
    classes = tf.where(tf.reduce_any(tf.slice(can_win, begin, extent), axis=[0, 1]))[:, 0]
    classes = tf.cast(classes, tf.int32)

    def compare() -> tf.Tensor:
        values = tf.gather(tf.slice(logits, begin, extent), classes, axis=2)
        for vertical, horizontal in ((up_rows, up_columns), (rows, columns)):
            values = _between(_between(values, horizontal, 1), vertical, 0)
        if offsets is not None:
            values -= tf.gather(offsets, classes)
        return tf.gather(classes, tf.argmax(values, axis=-1, output_type=tf.int32))

    def single() -> tf.Tensor:
        return tf.fill([tf.size(rows.lower), tf.size(columns.lower)], classes[0])

    return tf.cond(tf.size(classes) == 1, single, compare)


def _can_win(logits: tf.Tensor) -> tf.Tensor:
    """bool `[h, w, S]`: the classes that may be the best somewhere around each of the logits."""
    # A pixel of the image reads two neighbours of the upsampled ones, which read three at most.
    highest = tf.nn.max_pool2d(logits[None], 3, 1, "SAME")[0]
    lowest = -tf.nn.max_pool2d(-logits[None], 3, 1, "SAME")[0]
    finite = tf.where(tf.math.is_finite(logits), tf.abs(logits), 0)
    margin = 1e-5 * tf.reduce_max(finite)  # what rounding may add to a value
    bound = tf.reduce_max(lowest, axis=-1, keepdims=True) - margin
    return ~(highest < bound)  # a NaN is not below


@tf.function(input_signature=[tf.TensorSpec([], tf.int32)] * 4, autograph=False)
def _sources(
    first: tf.Tensor, count: tf.Tensor, extent: tf.Tensor, new_extent: tf.Tensor
) -> Points:
    """The `Points` that `count` pixels from `first` on read when `extent` becomes `new_extent`.

    With the arithmetic of TensorFlow's kernel of bilinear resizing, half-pixel centres.
    """
    scale = tf.cast(extent, tf.float32) / tf.cast(new_extent, tf.float32)
    points = (tf.cast(first + tf.range(count), tf.float32) + 0.5) * scale - 0.5
    below = tf.floor(points)
    last = extent - 1
    return Points(
        tf.minimum(tf.cast(tf.nn.relu(below), tf.int32), last),
        tf.minimum(tf.cast(tf.math.ceil(points), tf.int32), last),
        points - below,
    )


def _from_first(points: Points) -> tuple[tf.Tensor, Points]:
    """The first pixel that is read, and the points counted from there."""
    first = points.lower[0]
    return first, Points(points.lower - first, points.upper - first, points.share)


def _between(values: tf.Tensor, points: Points, axis: int) -> tf.Tensor:
    """Bilinear values along axis 0 or 1 of `[h, w, C]`."""
    if axis == 1:
        following = tf.concat([values[:, 1:], values[:, -1:]], axis=1)
    else:
        following = tf.concat([values[1:], values[-1:]], axis=0)
    # The differences before they are spread over many points: those of neighbours, or none.
    share = tf.where(points.lower == points.upper, 0.0, points.share)
    share = tf.cast(share[:, None] if axis == 1 else share[:, None, None], values.dtype)
    steps = tf.gather(following - values, points.lower, axis=axis)
    return tf.gather(values, points.lower, axis=axis) + steps * share
