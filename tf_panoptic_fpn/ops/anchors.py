"""Anchor boxes of a feature pyramid."""

import math
from collections.abc import Iterable, Sequence

from keras import ops

from tf_panoptic_fpn.ops.shared_body import call_shared
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
    levels = []
    for (height, width), stride, size in zip(feature_sizes, strides, sizes, strict=True):
        cell = []
        for ratio in ratios:
            half_width = size / math.sqrt(ratio) / 2
            half_height = ratio * half_width
            cell.append([-half_height, -half_width, half_height, half_width])
        of_cell = ops.convert_to_tensor(cell, dtype=dtype)
        ys, xs = (ops.arange(n, dtype="int32") * stride for n in (height, width))
        levels.append(call_shared(_place_anchors, ys, xs, of_cell))
    return ops.concatenate(levels, axis=0)


def _place_anchors(ys: Tensor, xs: Tensor, of_cell: Tensor) -> Tensor:
    """The boxes `[h w n, 4]` of cells, from those of a cell around 0 `[n, 4]`."""
    ys, xs = ops.meshgrid(ops.cast(ys, of_cell.dtype), ops.cast(xs, of_cell.dtype), indexing="ij")
    shifts = ops.reshape(ops.stack([ys, xs, ys, xs], axis=-1), [-1, 1, 4])
    return ops.reshape(shifts + of_cell, [-1, 4])
