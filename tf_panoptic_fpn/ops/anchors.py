"""Anchor boxes of a feature pyramid."""

import math
from collections.abc import Iterable, Sequence

from keras import ops

from tf_panoptic_fpn.schema import Tensor


def pyramid_anchors(
    feature_sizes: Iterable[tuple[Tensor, Tensor]],
    strides: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float],
    dtype: str = "float32",
) -> Tensor:
    """Makes the anchors of all levels.

    Args:
        feature_sizes: list of (h, w), ints or int32 scalars, one a level.
        strides: list of ints, pixels between the cells of each level.
        sizes: list of floats, the side in pixels of each level's square anchor.
        ratios: list of floats, height / width; all anchors of a level have the same area.
        dtype: "float32" or "float64".

    Returns:
        `[A, 4]`, yxyx, not clipped. Levels follow each other; within a level the order is
        (y, x, ratio), and cell (0, 0) is centred on pixel coordinate (0, 0).

    Reference: Feature Pyramid Networks, arXiv:1612.03144, section 4.1.
    """
    levels = [
        _level_anchors(height, width, stride, size, ratios, dtype)
        for (height, width), stride, size in zip(feature_sizes, strides, sizes, strict=True)
    ]
    return ops.concatenate(levels, axis=0)


def _level_anchors(
    height: Tensor, width: Tensor, stride: int, size: float, ratios: Sequence[float], dtype: str
) -> Tensor:
    cell = []
    for ratio in ratios:
        half_width = size / math.sqrt(ratio) / 2
        half_height = ratio * half_width
        cell.append([-half_height, -half_width, half_height, half_width])
    ys, xs = (ops.cast(ops.arange(n, dtype="int32") * stride, dtype) for n in (height, width))
    ys, xs = ops.meshgrid(ys, xs, indexing="ij")
    shifts = ops.reshape(ops.stack([ys, xs, ys, xs], axis=-1), [-1, 1, 4])
    return ops.reshape(shifts + ops.convert_to_tensor(cell, dtype=dtype), [-1, 4])
