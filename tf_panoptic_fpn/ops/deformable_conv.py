"""Deformable convolution: each tap of the kernel reads where a learned offset points.

A plain gather holds four corners of every tap at once, 36 times the channels of the output's cells.
Here a tap at a time is read, interpolated, multiplied and added up, in the gradient too, which
reads it anew.

Reference: Deformable Convolutional Networks, arXiv:1703.06211; with a mask ("modulated") Deformable
ConvNets v2, arXiv:1811.11168.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from tf_panoptic_fpn.ops.gradients import with_gradient
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.precision import full_precision
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor


def deformable_conv(
    x: Tensor,
    offsets: Tensor,
    kernel: Tensor,
    mask: Tensor | None = None,
    strides: int = 1,
    dilation: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Convolves with taps that are moved by offsets; the map is 0 outside, and fades to it.

    Tap (i, j) of the output at (y, x) reads `y * strides + (i - kh // 2) * dilation + offset`,
    and so for x, between the four cells around it. A cell outside the map is 0.

    Args:
        x: float `[B, H, W, C]`.
        offsets: float `[B, H', W', 2 D kh kw]`, cells: for each deform group and tap, row by row,
            (dy, dx). H' = (H - 1) // strides + 1, and W' so.
        kernel: `[kh, kw, C / groups, filters]`, of odd sides and the dtype of `x`; its third side
            says how many groups of the convolution there are.
        mask: float `[B, H', W', D kh kw]`, multiplies what a tap reads; None for 1.
        strides: int.
        dilation: int, cells between taps.
        deform_groups: int D, equal parts of the channels, each with offsets of its own.

    Returns:
        `[B, H', W', filters]`, the dtype of `x`. It has gradients to all four.
    """
    geometry = {"strides": strides, "dilation": dilation, "deform_groups": deform_groups}
    inputs = [x, full_precision(offsets), ops.cast(ops.convert_to_tensor(kernel), x.dtype)]
    inputs += [] if mask is None else [full_precision(mask)]
    return with_gradient(functools.partial(_convolve, **geometry), *inputs)


@dataclasses.dataclass
class _Taps:
    """Where the taps read; N is B x D x H' x W', that many cells has a tap.

    Attributes:
        indices: int32 `[taps, N, 4]`, the cells around: upper left and right, lower left and right.
        below, right: `[taps, N]`, distance from the upper left cell, 0 to 1.
        moves_y, moves_x: `[taps, N]`, 1, or 0 where the tap is off the map: it reads 0 around.
        mask: `[taps, N]` or None.
    """

    indices: Tensor
    below: Tensor
    right: Tensor
    moves_y: Tensor
    moves_x: Tensor
    mask: Tensor | None

    def corner_weights(self, dtype: Any, masked: bool = True) -> Tensor:
        """How much each of the four cells weighs, `[taps, N, 4]`."""
        above, left = 1 - self.below, 1 - self.right
        sides = (above * left, above * self.right, self.below * left, self.below * self.right)
        weights = ops.stack(sides, axis=-1)
        if masked and self.mask is not None:
            weights = weights * self.mask[..., None]
        return ops.cast(weights, dtype)


def _convolve(
    x: Tensor,
    offsets: Tensor,
    kernel: Tensor,
    mask: Tensor | None = None,
    *,
    strides: int,
    dilation: int,
    deform_groups: int,
) -> tuple[Tensor, Callable]:
    """The output and the function of its gradient."""
    batch, height, width = sides(offsets)[:3]
    num_taps, filters = kernel.shape[0] * kernel.shape[1], kernel.shape[-1]
    taps = _place_taps(x, offsets, kernel, mask, strides, dilation, deform_groups)
    kernels = ops.reshape(kernel, (num_taps, *kernel.shape[2:]))

    def read(rows: Tensor, weights: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The cells `[N, 4, C / D]` around tap t, and what it reads between, `[B H' W', C]`."""
        cells = ops.take(rows, taps.indices[t], axis=0)
        if use_tensorflow_kernels():  # where nothing fuses, the product is one pass and not two
            sampled = ops.squeeze(ops.matmul(weights[t][:, None], cells), axis=1)
        else:
            sampled = ops.sum(cells * weights[t][..., None], axis=1)
        return cells, _join_groups(sampled, batch, deform_groups)

    rows, weights, total = _rows(x, deform_groups), taps.corner_weights(x.dtype), 0
    for t in range(num_taps):
        total = total + _grouped_product(read(rows, weights, t)[1], kernels[t])

    def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
        rows, weights = _rows(x, deform_groups), taps.corner_weights(x.dtype)
        dy = ops.reshape(upstream, (-1, filters))
        to_rows, to_kernel, to_weights = 0, [], []
        for t in range(num_taps):
            cells, sampled = read(rows, weights, t)
            to_kernel.append(_kernel_gradient(sampled, dy, kernels.shape[1]))
            dsampled = _grouped_product(dy, _transposed(kernels[t], x.shape[-1]))
            dsampled = _split_groups(dsampled, batch, deform_groups)
            products = ops.matmul(full_precision(cells), full_precision(dsampled)[..., None])
            to_weights.append(ops.squeeze(products, axis=-1))
            dcells = dsampled[:, None] * weights[t][..., None]
            dcells = ops.reshape(dcells, (-1, rows.shape[-1]))
            indices = ops.reshape(taps.indices[t], (-1,))
            to_rows = to_rows + ops.segment_sum(dcells, indices, sides(rows)[0])
        dx = _of_map(to_rows, x, deform_groups)
        doffsets, dmask = _tap_gradients(taps, ops.stack(to_weights))
        dkernel = ops.reshape(ops.stack(to_kernel), kernel.shape)
        gradients = (dx, _of_outputs(doffsets, offsets), ops.cast(dkernel, kernel.dtype))
        return gradients if dmask is None else (*gradients, _of_outputs(dmask[..., None], mask))

    return ops.reshape(total, (batch, height, width, filters)), gradient


def _place_taps(
    x: Tensor,
    offsets: Tensor,
    kernel: Tensor,
    mask: Tensor | None,
    strides: int,
    dilation: int,
    deform_groups: int,
) -> _Taps:
    kernel_size, num_taps = kernel.shape[:2], kernel.shape[0] * kernel.shape[1]
    map_size, output_size = sides(x)[1:3], sides(offsets)[1:3]
    points = _of_taps(offsets, deform_groups, num_taps, 2)
    dtype, firsts, distances, moves = offsets.dtype, [], [], []
    for axis, size in enumerate(map_size):
        cells = ops.arange(output_size[axis], dtype=dtype) * strides
        steps = ops.arange(kernel_size[axis], dtype=dtype) - kernel_size[axis] // 2
        shape = [1, 1, 1]
        shape[1 + axis] = -1
        starts = ops.broadcast_to(ops.reshape(cells, shape), (1, *output_size))
        shape = [1, 1]
        shape[axis] = -1
        steps = ops.broadcast_to(ops.reshape(steps * dilation, shape), kernel_size)
        starts = ops.reshape(steps, (-1, 1, 1)) + starts
        starts = ops.reshape(starts, (num_taps, 1, -1))
        last = ops.cast(size, dtype)
        point = points[..., axis] + starts
        moves.append(ops.cast((point > -1) & (point < last), dtype))
        point = ops.clip(point, -1, last)
        first = ops.minimum(ops.floor(point), last - 1)
        distances.append(point - first)
        # In integers again: what is no number has no place, and must not read beyond the map.
        firsts.append(ops.clip(ops.cast(first, "int32") + 1, 0, size))
    height, width = map_size
    maps = ops.arange(sides(points)[1], dtype="int32")[None, :, None]
    firsts = (maps * (height + 2) + firsts[0]) * (width + 2) + firsts[1]
    # Of the map with a border of zeros.
    around = [firsts, firsts + 1, firsts + (width + 2), firsts + (width + 3)]
    indices = ops.reshape(ops.stack(around, axis=-1), (num_taps, -1, 4))
    below, right, moves_y, moves_x = (
        ops.reshape(values, (num_taps, -1)) for values in (*distances, *moves)
    )
    if mask is not None:
        mask = ops.reshape(_of_taps(mask, deform_groups, num_taps, 1), (num_taps, -1))
    return _Taps(indices, below, right, moves_y, moves_x, mask)


def _of_taps(values: Tensor, deform_groups: int, num_taps: int, size: int) -> Tensor:
    """`[B, H', W', D taps size]` -> `[taps, B D, H' W', size]`."""
    batch, height, width = sides(values)[:3]
    values = ops.reshape(values, (batch, height * width, deform_groups, num_taps, size))
    values = ops.transpose(values, (3, 0, 2, 1, 4))
    return ops.reshape(values, (num_taps, batch * deform_groups, height * width, size))


def _of_outputs(values: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_of_taps`: `[taps, N, size]` -> the shape of `like`."""
    batch, height, width, depth = sides(like)
    num_taps, _, size = values.shape
    groups = depth // (num_taps * size)
    values = ops.reshape(values, (num_taps, batch, groups, height * width, size))
    return ops.reshape(ops.transpose(values, (1, 3, 2, 0, 4)), sides(like))


def _tap_gradients(taps: _Taps, to_weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """From those of the corners' weights `[taps, N, 4]` to offsets' and the mask's."""
    top_left, top_right, low_left, low_right = ops.unstack(to_weights, axis=-1)
    above, left = 1 - taps.below, 1 - taps.right
    dy = left * (low_left - top_left) + taps.right * (low_right - top_right)
    dx = above * (top_right - top_left) + taps.below * (low_right - low_left)
    doffsets = ops.stack([dy * taps.moves_y, dx * taps.moves_x], axis=-1)
    if taps.mask is None:
        return doffsets, None
    plain = taps.corner_weights(to_weights.dtype, masked=False)
    return doffsets * taps.mask[..., None], ops.sum(to_weights * plain, axis=-1)


def _rows(x: Tensor, deform_groups: int) -> Tensor:
    """The cells of the map with a border of zeros: `[B D (H + 2) (W + 2), C / D]`."""
    batch, height, width, channels = sides(x)
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    if deform_groups > 1:
        x = ops.reshape(x, (batch, height + 2, width + 2, deform_groups, -1))
        x = ops.transpose(x, (0, 3, 1, 2, 4))
    return ops.reshape(x, (-1, channels // deform_groups))


def _of_map(rows: Tensor, like: Tensor, deform_groups: int) -> Tensor:
    """The inverse of `_rows`."""
    batch, height, width, channels = sides(like)
    x = ops.reshape(rows, (batch, deform_groups, height + 2, width + 2, -1))
    x = ops.transpose(x[:, :, 1:-1, 1:-1], (0, 2, 3, 1, 4))
    return ops.reshape(x, (batch, height, width, channels))


def _join_groups(x: Tensor, batch: Tensor, deform_groups: int) -> Tensor:
    """`[B D S, C / D]` -> `[B S, C]`."""
    if deform_groups == 1:
        return x
    width = x.shape[-1]
    x = ops.transpose(ops.reshape(x, (batch, deform_groups, -1, width)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, deform_groups * width))


def _split_groups(x: Tensor, batch: Tensor, deform_groups: int) -> Tensor:
    """The inverse of `_join_groups`."""
    if deform_groups == 1:
        return x
    width = x.shape[-1] // deform_groups
    x = ops.transpose(ops.reshape(x, (batch, -1, deform_groups, width)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, width))


def _grouped_product(x: Tensor, kernel: Tensor) -> Tensor:
    """`[n, C]` times `[C / groups, F]`, each group of columns with its own."""
    groups = x.shape[-1] // kernel.shape[0]
    if groups == 1:
        return ops.matmul(x, kernel)
    kernel = ops.reshape(kernel, (kernel.shape[0], groups, -1))
    x = ops.reshape(x, (-1, groups, kernel.shape[0]))
    return ops.reshape(ops.einsum("ngc,cgf->ngf", x, kernel), (-1, groups * kernel.shape[2]))


def _transposed(kernel: Tensor, channels: int) -> Tensor:
    """`[C / groups, F]` -> `[F / groups, C]`."""
    width, filters = kernel.shape
    kernel = ops.reshape(kernel, (width, channels // width, -1))
    return ops.reshape(ops.transpose(kernel, (2, 1, 0)), (filters * width // channels, channels))


def _kernel_gradient(x: Tensor, upstream: Tensor, width: int) -> Tensor:
    """`[n, C]`, `[n, F]` -> `[C / groups, F]`, with C / groups = width."""
    groups = x.shape[-1] // width
    if groups == 1:
        return ops.matmul(ops.transpose(x), upstream)
    x = ops.reshape(x, (-1, groups, width))
    upstream = ops.reshape(upstream, (-1, groups, upstream.shape[-1] // groups))
    return ops.reshape(ops.einsum("ngc,ngf->cgf", x, upstream), (width, -1))
