"""The semantic map of an image, tile by tile, so that no logits are held at its size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.models.semantic_head import UPSAMPLING
from tf_panoptic_fpn.ops.canvas import RUN, RunCanvas, Window
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.resize import resize_bilinear, upsample_bilinear
from tf_panoptic_fpn.ops.shared_body import call_shared

TILE = 3 * RUN  # pixels, the side of a tile


class Points(NamedTuple):
    """Where pixels lie between the pixels of a smaller or larger image, along an axis."""

    lower: tf.Tensor
    upper: tf.Tensor
    share: tf.Tensor  # of the upper one

    def part(self, first: tf.Tensor, count: tf.Tensor) -> "Part":
        """What `count` pixels from `first` on read."""
        return call_shared(_part, *self, first, count)


class Part(NamedTuple):
    """Pixels that read `extent` others from `begin` on, from where their `lower` counts."""

    begin: tf.Tensor
    extent: tf.Tensor
    lower: tf.Tensor
    share: tf.Tensor


class Axis(NamedTuple):
    """The way of the logits to the image along an axis, for all its pixels."""

    upsampled: Points
    resized: Points

    @classmethod
    def of(
        cls, extent: tf.Tensor, size: tf.Tensor, original: tf.Tensor, count: tf.Tensor
    ) -> "Axis":
        """Of `extent` logits; `size`, `original`: see `semantic_map`; of `count` pixels."""
        upsampled = extent * UPSAMPLING
        return cls(
            call_shared(_sources, extent, upsampled, upsampled),
            call_shared(_sources, size, original, count),
        )

    def part(self, first: tf.Tensor, count: tf.Tensor) -> tuple[Part, Part]:
        """What pixels of the image read of the upsampled logits, and these of the logits."""
        resized = self.resized.part(first, count)
        return self.upsampled.part(resized.begin, resized.extent), resized


def _part(
    lower: tf.Tensor, upper: tf.Tensor, share: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> Part:
    lower = lower[first : first + count]
    begin = lower[0]
    extent = upper[first + count - 1] + 1 - begin
    return Part(begin, extent, lower - begin, share[first : first + count])


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
    offsets = None if class_shares is None else log_shares(class_shares)
    if not use_tensorflow_kernels():  # XLA wants static shapes
        values = resized_logits(logits, size, original)
        values = values if offsets is None else values - offsets
        return tf.argmax(values, axis=-1, output_type=tf.int32)
    canvas = RunCanvas((original[0], original[1]))
    can_win = _can_win(logits if offsets is None else logits - offsets)
    extents = tf.shape(logits)
    rows = Axis.of(extents[0], size[0], original[0], original[0])
    columns = Axis.of(extents[1], size[1], original[1], canvas.runs * RUN)
    tiles_across = -(-original[1] // TILE)
    count = -(-original[0] // TILE) * tiles_across

    def label_tile(index: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        top, left = index // tiles_across * TILE, index % tiles_across * TILE
        height = tf.minimum(TILE, original[0] - top)
        width = tf.minimum(TILE, canvas.runs * RUN - left)
        parts = rows.part(top, height), columns.part(left, width)
        best = _best_classes(logits, can_win, *parts, offsets)
        return index + 1, canvas.write(labels, Window(top, left, height, width), best)

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
    rows: tuple[Part, Part],
    columns: tuple[Part, Part],
    offsets: np.ndarray | None,
) -> tf.Tensor:
    """int32 `[height, width]`, the best classes at pixels of the image."""
    (up_rows, rows), (up_columns, columns) = rows, columns
    begin, extent = [up_rows.begin, up_columns.begin, 0], [up_rows.extent, up_columns.extent, -1]
    classes = tf.where(tf.reduce_any(tf.slice(can_win, begin, extent), axis=[0, 1]))[:, 0]
    classes = tf.cast(classes, tf.int32)

    def compare() -> tf.Tensor:
        values = tf.gather(tf.slice(logits, begin, extent), classes, axis=2)
        for vertical, horizontal in ((up_rows, up_columns), (rows, columns)):
            for part, axis in ((horizontal, 1), (vertical, 0)):
                values = call_shared(_between, values, part.lower, part.share, axis=axis)
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


def _sources(extent: tf.Tensor, new_extent: tf.Tensor, count: tf.Tensor) -> Points:
    """The `Points` that the first `count` pixels read when `extent` becomes `new_extent`.

    With the arithmetic of TensorFlow's kernel of bilinear resizing, half-pixel centres.
    """
    scale = tf.cast(extent, tf.float32) / tf.cast(new_extent, tf.float32)
    points = (tf.cast(tf.range(count), tf.float32) + 0.5) * scale - 0.5
    below = tf.floor(points)
    last = extent - 1
    lower = tf.minimum(tf.cast(tf.nn.relu(below), tf.int32), last)
    upper = tf.minimum(tf.cast(tf.math.ceil(points), tf.int32), last)
    return Points(lower, upper, tf.where(lower == upper, 0.0, points - below))


def _between(values: tf.Tensor, lower: tf.Tensor, share: tf.Tensor, axis: int) -> tf.Tensor:
    """Bilinear values of a `Part` along axis 0 or 1 of `[h, w, C]`."""
    if axis == 1:
        following = tf.concat([values[:, 1:], values[:, -1:]], axis=1)
    else:
        following = tf.concat([values[1:], values[-1:]], axis=0)
    # The differences before they are spread over many points: those of neighbours, or none.
    share = tf.cast(share[:, None] if axis == 1 else share[:, None, None], values.dtype)
    steps = tf.gather(following - values, lower, axis=axis)
    return tf.gather(values, lower, axis=axis) + steps * share
