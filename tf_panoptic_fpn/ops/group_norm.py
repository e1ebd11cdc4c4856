"""Group normalisation as one scale and shift a channel."""

from collections.abc import Callable

import keras
from keras import ops

from tf_panoptic_fpn.ops.precision import full_precision
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor


def group_norm(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, epsilon: float) -> Tensor:
    """Normalises each image's groups of channels, then scales and shifts each channel.

    The statistics are those of the channels, put together: the map itself is read three times and
    never reshaped into groups. They are float32, or float64 for float64, whatever the dtype of `x`.

    Args:
        x: float `[B, H, W, C]`.
        gamma: float `[C]`.
        beta: float `[C]`.
        groups: int, of C / groups neighbouring channels each.
        epsilon: float, added to the variance.

    Returns:
        `[B, H, W, C]`, the dtype of `x`.

    Reference: Group Normalization, arXiv:1803.08494, equations 1 to 6.
    """
    gamma, beta = (full_precision(ops.convert_to_tensor(w)) for w in (gamma, beta))
    if keras.backend.backend() == "tensorflow":
        y = call_shared(_normalize, x, gamma, beta, groups=groups, epsilon=epsilon)
        y.set_shape(x.shape)
        return y
    scale, shift, _, _ = _scale_and_shift(full_precision(x), gamma, beta, groups, epsilon)
    return _affine(x, scale, shift)


def _normalize(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, epsilon: float) -> Tensor:
    function = ops.custom_gradient(
        lambda x, gamma, beta: _with_gradient(x, gamma, beta, groups, epsilon)
    )
    return function(x, gamma, beta)


def _scale_and_shift(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns (scale, shift `[B, 1, 1, C]`, mean, 1 / deviation `[B, groups, 1]`)."""
    means = ops.mean(x, axis=(1, 2), keepdims=True)
    variances = ops.mean(ops.square(x - means), axis=(1, 2))
    width = sides(x)[-1] // groups
    means, variances = (ops.reshape(m, [-1, groups, width]) for m in (means, variances))
    mean = ops.mean(means, axis=2, keepdims=True)
    variance = ops.mean(variances + ops.square(means - mean), axis=2, keepdims=True)
    inverse = ops.rsqrt(variance + epsilon)
    scale = inverse * ops.reshape(gamma, [groups, width])
    shift = ops.reshape(beta, [groups, width]) - mean * scale
    return *_of_channels(scale, shift, sides(x)[-1]), mean, inverse


def _with_gradient(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, epsilon: float
) -> tuple[Tensor, Callable]:
    """The output and the function of its gradient, which reads the maps twice."""
    channels = sides(x)[-1]
    width = channels // groups
    full = full_precision(x)
    scale, shift, mean, inverse = _scale_and_shift(full, gamma, beta, groups, epsilon)

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dy = full_precision(upstream)
        sums = ops.reshape(ops.sum(dy, axis=(1, 2)), [-1, groups, width])
        products = ops.reshape(ops.sum(dy * full, axis=(1, 2)), [-1, groups, width])
        products = (products - mean * sums) * inverse  # of dy with the normalised x
        # What each group's mean and deviation hand on to every one of its elements.
        count = ops.cast(ops.size(full) // ops.size(mean), dy.dtype)
        weights = ops.reshape(gamma, [groups, width]) * inverse / count
        to_mean = ops.sum(weights * sums, axis=2, keepdims=True)
        to_x = ops.sum(weights * products, axis=2, keepdims=True) * inverse
        ones = ops.ones([groups, width], dtype=dy.dtype)
        slope, offset = _of_channels(-to_x * ones, (mean * to_x - to_mean) * ones, channels)
        dx = dy * scale + (full * slope + offset)
        return (
            ops.cast(dx, upstream.dtype),
            ops.reshape(ops.sum(products, axis=0), [channels]),
            ops.reshape(ops.sum(sums, axis=0), [channels]),
        )

    return _affine(x, scale, shift), gradient


def _of_channels(a: Tensor, b: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Two `[B, groups, width]`, each as `[B, 1, 1, C]`."""
    return ops.reshape(a, (-1, 1, 1, channels)), ops.reshape(b, (-1, 1, 1, channels))


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return ops.cast(full_precision(x) * scale + shift, x.dtype)
