"""A model as it is served: with the weights that are stored, norms folded into convolutions."""

import contextlib
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.backbones.conv_norm import ConvNorm, folded_norm, shift_of
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN


class StoredModel:
    """Calls a model with other weights than its own, which it leaves as they are.

    A norm whose statistics are fixed is folded: its scale is in the kernel of the convolution
    before it, and its shift is the bias.

    Args:
        model: a `PanopticFPN`.
        dtype: "float32", or "bfloat16", in which weights of two axes and more are stored; they are
            computed with as the model computes.

    `weights`: list of `tf.Variable`, of which each is read. `is_same`: bool, whether they are the
    model's own, all of them.
    """

    def __init__(self, model: PanopticFPN, dtype: str = "float32") -> None:
        self.model = model
        self.config = model.config
        layers = [x for x in model._flatten_layers() if isinstance(x, ConvNorm)]
        self._folded = [layer for layer in layers if folded_norm(layer.norm) is not None]
        values, dropped = _folded_values(self._folded)
        read = [weight for weight in model.weights if weight.path not in dropped]
        self.weights = [_stored(weight, values.get(weight.path), dtype) for weight in read]
        self._stored = list(zip(read, self.weights, strict=True))
        self.is_same = all(weight.value is stored for weight, stored in self._stored)

    def __call__(
        self, inputs: Mapping[str, tf.Tensor], training: bool = False
    ) -> dict[str, tf.Tensor]:
        mapping = [(weight, tf.cast(v, weight.dtype)) for weight, v in self._stored]
        with self._folding(), keras.StatelessScope(mapping):
            return self.model(inputs, training=training)

    @contextlib.contextmanager
    def _folding(self) -> Iterator[None]:
        try:
            for layer in self._folded:
                layer.is_folded = True
            yield
        finally:
            for layer in self._folded:
                layer.is_folded = False


def _folded_values(layers: list[ConvNorm]) -> tuple[dict[str, np.ndarray], set[str]]:
    """The values of the weights that change, by path, and the paths of those that no one reads."""
    values: dict[str, np.ndarray] = {}
    dropped: set[str] = set()
    for layer in layers:
        folded = folded_norm(layer.norm)
        if folded is None:
            continue
        scale, shift = folded
        kernel = layer.last_kernel
        values[kernel.path] = kernel.numpy() * scale
        dropped |= {weight.path for weight in layer.norm.weights}
        values[shift_of(layer.norm).path] = shift
    return values, dropped - set(values)


def _stored(weight: keras.Variable, value: np.ndarray | None, dtype: str) -> tf.Variable:
    is_rounded = dtype != weight.dtype and weight.dtype == "float32" and len(weight.shape) > 1
    if value is None and not is_rounded:
        return weight.value
    value = weight.numpy() if value is None else value
    return tf.Variable(tf.cast(value, dtype if is_rounded else weight.dtype), trainable=False)
