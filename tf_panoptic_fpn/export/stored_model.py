"""A model as it is served: with the weights that are stored, norms folded into convolutions."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.backbones.conv_norm import ConvNorm, add_bias, folded_norm, shift_of
from tf_panoptic_fpn.backbones.network import NetworkBackbone
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


class StoredModel:
    """Calls a model with other weights than its own, which it leaves as they are.

    A norm whose statistics are fixed is folded: its scale is in the kernel of the convolution
    before it, and its shift is the bias. In a network of Keras these are the batch norms that alone
    read the output of a convolution.

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
        layers = [x for x in model._flatten_layers() if isinstance(x, (ConvNorm, NetworkBackbone))]
        self._folded = [x for x in layers if isinstance(x, ConvNorm) and folded_norm(x.norm)]
        networks = [x.network for x in layers if isinstance(x, NetworkBackbone)]
        self._pairs = [pair for network in networks for pair in _conv_and_norm(network)]
        pairs = [(x.conv, x.norm) for x in self._folded] + self._pairs
        values, dropped = _folded_values(pairs)
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
            for _, norm in self._pairs:
                norm.call = _adding(norm)
            yield
        finally:
            for layer in self._folded:
                layer.is_folded = False
            for _, norm in self._pairs:
                norm.__dict__.pop("call", None)


def _adding(norm: keras.layers.BatchNormalization) -> Any:
    def call(inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        return add_bias(inputs, tf.cast(norm.beta, inputs.dtype))

    return call


def _conv_and_norm(network: keras.Model) -> list[tuple[Any, Any]]:
    """The batch norms of a functional network that can be folded, each with its convolution."""
    nodes = [node for nodes in network._nodes_by_depth.values() for node in nodes]
    uses = Counter(id(x) for node in nodes for x in node.input_tensors)
    uses.update(map(id, network.outputs))
    runs = Counter(id(node.operation) for node in nodes)
    pairs = []
    for node in nodes:
        norm = node.operation
        if not isinstance(norm, keras.layers.BatchNormalization) or norm.beta is None:
            continue
        (x,) = node.input_tensors
        conv = x._keras_history.operation
        is_conv = isinstance(conv, _CONVOLUTIONS) and conv.activation is keras.activations.linear
        is_alone = uses[id(x)] == runs[id(conv)] == runs[id(norm)] == 1
        if is_conv and is_alone and norm.axis in (-1, len(x.shape) - 1):
            pairs.append((conv, norm))
    return pairs


def _folded_values(pairs: list[tuple[Any, Any]]) -> tuple[dict[str, np.ndarray], set[str]]:
    """The values of the weights that change, by path, and the paths of those that no one reads."""
    values: dict[str, np.ndarray] = {}
    dropped: set[str] = set()
    for conv, norm in pairs:
        folded = folded_norm(norm)
        if folded is None:
            continue
        scale, shift = folded
        kernel = conv.pointwise_kernel if hasattr(conv, "pointwise_kernel") else conv.kernel
        is_depthwise = isinstance(conv, keras.layers.DepthwiseConv2D)
        values[kernel.path] = kernel.numpy() * (
            scale.reshape(kernel.shape[-2:]) if is_depthwise else scale
        )
        if conv.bias is not None:
            values[conv.bias.path] = conv.bias.numpy() * scale
        dropped |= {weight.path for weight in norm.weights}
        values[shift_of(norm).path] = shift
    return values, dropped - set(values)


def _stored(weight: keras.Variable, value: np.ndarray | None, dtype: str) -> tf.Variable:
    is_rounded = dtype != weight.dtype and weight.dtype == "float32" and len(weight.shape) > 1
    if value is None and not is_rounded:
        return weight.value
    value = weight.numpy() if value is None else value
    return tf.Variable(tf.cast(value, dtype if is_rounded else weight.dtype), trainable=False)
