"""Boxes: yxyx, float32, absolute pixels, continuous in [0, H] x [0, W]."""

import math
from collections.abc import Sequence

from keras import ops

from tf_panoptic_fpn.schema import Tensor

# exp of a larger delta would be a box over 62 times its reference.
MAX_LOG_SCALE = math.log(1000.0 / 16)
# Deltas are scaled by these, in the order (dy, dx, dh, dw).
RPN_DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# Keeps the deltas of degenerate boxes finite.
MIN_SIZE = 1e-6


def box_areas(boxes: Tensor) -> Tensor:
    """Computes the area of each box; a box with a negative side has area 0.

    Args:
        boxes: float32 `[..., 4]`, yxyx.

    Returns:
        float32 `[...]`, square pixels.
    """
    start, end = ops.split(boxes, 2, axis=-1)
    return ops.prod(ops.maximum(end - start, 0), axis=-1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Computes the intersection over union of every box of `a` with every box of `b`.

    Args:
        a: float32 `[..., N, 4]`, yxyx.
        b: float32 `[..., M, 4]`, yxyx; the leading axes broadcast with those of `a`.

    Returns:
        float32 `[..., N, M]`; 0 where either box is empty.
    """
    # One coordinate at a time: a last axis of 2 would be several times slower on a CPU.
    a, b = a[..., :, None, :], b[..., None, :, :]
    a_top, a_left, a_bottom, a_right = ops.unstack(a, axis=-1)
    b_top, b_left, b_bottom, b_right = ops.unstack(b, axis=-1)
    heights = ops.maximum(ops.minimum(a_bottom, b_bottom) - ops.maximum(a_top, b_top), 0)
    widths = ops.maximum(ops.minimum(a_right, b_right) - ops.maximum(a_left, b_left), 0)
    intersection = heights * widths
    union = box_areas(a) + box_areas(b) - intersection
    return intersection / ops.maximum(union, MIN_SIZE**2)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Clips boxes to their image.

    Args:
        boxes: float32 `[B, N, 4]` or `[N, 4]`, yxyx.
        image_sizes: `[B, 2]` or `[2]`, (H, W) in pixels.

    Returns:
        float32, the shape of `boxes`, with y in [0, H] and x in [0, W].
    """
    sizes = ops.cast(image_sizes, boxes.dtype)
    limits = ops.expand_dims(ops.concatenate([sizes, sizes], axis=-1), -2)
    return ops.minimum(ops.maximum(boxes, 0), limits)


def scale_boxes(boxes: Tensor, scale_yx: Tensor) -> Tensor:
    """Multiplies the coordinates of boxes.

    Args:
        boxes: float32 `[B, N, 4]` or `[N, 4]`, yxyx.
        scale_yx: `[B, 2]` or `[2]`, factors of y and x.

    Returns:
        float32, the shape of `boxes`.
    """
    scale = ops.cast(scale_yx, boxes.dtype)
    return boxes * ops.expand_dims(ops.concatenate([scale, scale], axis=-1), -2)


def encode_boxes(boxes: Tensor, reference: Tensor, weights: Sequence[float]) -> Tensor:
    """Computes the deltas that move `reference` onto `boxes`; `decode_boxes` is the inverse.

    Args:
        boxes: float32 `[..., 4]`, yxyx.
        reference: float32 `[..., 4]`, yxyx, anchors or proposals.
        weights: 4 floats, factors of (dy, dx, dh, dw).

    Returns:
        float32 `[..., 4]`, (dy, dx, dh, dw): centre offsets over the reference's size, and the
        logarithm of the ratio of sizes. Finite for empty boxes too.

    Reference: R-CNN, arXiv:1311.2524, appendix C.
    """
    centers, sizes = _centers_and_sizes(boxes)
    reference_centers, reference_sizes = _centers_and_sizes(reference)
    sizes = ops.maximum(sizes, MIN_SIZE)
    reference_sizes = ops.maximum(reference_sizes, MIN_SIZE)
    offsets = (centers - reference_centers) / reference_sizes
    log_scales = ops.log(sizes / reference_sizes)
    deltas = ops.concatenate([offsets, log_scales], axis=-1)
    return deltas * ops.convert_to_tensor(weights, dtype=deltas.dtype)


def decode_boxes(deltas: Tensor, reference: Tensor, weights: Sequence[float]) -> Tensor:
    """Applies deltas to `reference`; the inverse of `encode_boxes`.

    Args:
        deltas: float `[..., 4]`, (dy, dx, dh, dw).
        reference: float32 `[..., 4]`, yxyx, anchors or proposals; broadcasts with `deltas`.
        weights: 4 floats, factors of (dy, dx, dh, dw).

    Returns:
        float32 `[..., 4]`, yxyx. Heights and widths grow at most 1000/16-fold.
    """
    deltas = ops.cast(deltas, reference.dtype)
    deltas = deltas / ops.convert_to_tensor(weights, dtype=deltas.dtype)
    reference_centers, reference_sizes = _centers_and_sizes(reference)
    offsets, log_scales = ops.split(deltas, 2, axis=-1)
    centers = offsets * reference_sizes + reference_centers
    half_sizes = 0.5 * ops.exp(ops.minimum(log_scales, MAX_LOG_SCALE)) * reference_sizes
    return ops.concatenate([centers - half_sizes, centers + half_sizes], axis=-1)


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    start, end = ops.split(boxes, 2, axis=-1)
    sizes = end - start
    return start + 0.5 * sizes, sizes
