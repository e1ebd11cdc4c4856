"""The layers of a network as ONNX nodes, NCHW, with the weights of the Keras layers."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_panoptic_fpn.backbones.conv_norm import ConvNorm, GroupNorm, folded_norm
from tf_panoptic_fpn.backbones.resnet import ResidualBlock, ResNet
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.fpn import FPN
from tf_panoptic_fpn.models.normalize import STRIDE, Normalize
from tf_panoptic_fpn.models.rpn_head import RPNHead
from tf_panoptic_fpn.models.semantic_head import SemanticHead
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value

Features = Mapping[str, Value]


def array(weight: Any) -> np.ndarray:
    """The numbers of a Keras weight, float32."""
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float32)


def conv(
    g: Graph,
    x: Value,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    strides: int = 1,
    groups: int = 1,
) -> Value:
    """A convolution, padded by half its kernel on each side.

    Args:
        g: `Graph`.
        x: `[B, C, H, W]`.
        kernel: `[k, k, C / groups, filters]`, of Keras.
        bias: `[filters]`, or None.
        strides: int.
        groups: int.
    """
    size = kernel.shape[0]
    return g.op(
        "Conv",
        x,
        kernel.transpose(3, 2, 0, 1),
        bias,
        kernel_shape=[size, size],
        strides=[strides, strides],
        pads=[size // 2] * 4,
        group=groups,
    )


def keras_conv(g: Graph, x: Value, layer: keras.layers.Layer) -> Value:
    """A Keras convolution with bias and its activation, none or ReLU; strides of 1."""
    if isinstance(layer, keras.layers.SeparableConv2D):
        x = conv(g, depthwise(g, x, layer), array(layer.pointwise_kernel), array(layer.bias))
        return g.op("Relu", x) if layer.activation is keras.activations.relu else x
    x = conv(g, x, array(layer.kernel), array(layer.bias), groups=layer.groups)
    return g.op("Relu", x) if layer.activation is keras.activations.relu else x


def depthwise(g: Graph, x: Value, layer: keras.layers.SeparableConv2D) -> Value:
    """The first part of a separable convolution."""
    kernel = array(layer.depthwise_kernel).transpose(0, 1, 3, 2)
    return conv(g, x, kernel, None, groups=kernel.shape[3])


def conv_norm(g: Graph, x: Value, layer: ConvNorm) -> Value:
    """A `ConvNorm`; what its norm does at test to each channel is folded into the convolution."""
    if layer.separable:
        x = depthwise(g, x, layer.conv)
    kernel, norm = array(layer.last_kernel), layer.norm
    folded = folded_norm(norm)
    if folded is not None:
        scale, shift = folded
        x = conv(g, x, kernel * scale, shift, layer.strides, layer.groups)
    elif isinstance(norm, GroupNorm):
        x = conv(g, x, kernel, None, layer.strides, layer.groups)
        x = group_norm(g, x, array(norm.gamma), array(norm.beta), norm.groups, norm.epsilon)
    else:
        raise ConfigError(f"ONNX export knows no norm of type {type(norm).__name__}")
    return g.op("Relu", x) if layer.relu else x


def group_norm(
    g: Graph, x: Value, gamma: np.ndarray, beta: np.ndarray, groups: int, epsilon: float
) -> Value:
    """See `ops.group_norm`. Opset 18's own operator scales whole groups, not channels."""
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    grouped = g.op("Reshape", x, [0, groups, -1])
    grouped = g.op("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    x = g.op("Reshape", grouped, g.op("Shape", x))
    return x * gamma[:, None, None] + beta[:, None, None]


def layer_norm(g: Graph, x: Value, layer: keras.layers.LayerNormalization) -> Value:
    """Along the last axis."""
    gamma, beta = array(layer.gamma), array(layer.beta)
    return g.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=layer.epsilon)


def attention(g: Graph, query: Value, key: Value, value: Value, scale: float) -> Value:
    """`[B, heads, N, d]`, keys and values `[B, heads, M, d]` -> `[B, N, heads d]`."""
    scores = g.op("MatMul", query * scale, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    return g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, -1])


def normalize(g: Graph, x: Value, layer: Normalize) -> Value:
    """RGB 0-255 `[B, 3, H, W]` -> what the backbone reads, padded to multiples of 32."""
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (layer.mean, layer.std))
    x = x - mean
    if (std != 1).any():
        x = x / std
    missing = [(STRIDE - side % STRIDE) % STRIDE for side in (g.size(x, 2), g.size(x, 3))]
    return g.op("Pad", x, g.concat([[0] * 6, *missing]))


def resnet(g: Graph, x: Value, backbone: ResNet) -> Features:
    """Normalised images -> "C2".."C5"."""
    x = conv_norm(g, x, backbone.stem)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    features = {}
    stages = (backbone.res2, backbone.res3, backbone.res4, backbone.res5)
    for level, stage in enumerate(stages, start=2):
        for block in stage:
            x = _residual_block(g, x, block)
        features[f"C{level}"] = x
    return features


def _residual_block(g: Graph, x: Value, block: ResidualBlock) -> Value:
    shortcut = x if block.shortcut is None else conv_norm(g, x, block.shortcut)
    for layer in block.branch:
        x = conv_norm(g, x, layer)
    return g.op("Relu", x + shortcut)


def pyramid(g: Graph, inputs: Features, layer: FPN) -> Features:
    """ "C2".."C5" -> "P2".."P6"."""
    features: dict[str, Value] = {}
    top_down = None
    for level in (5, 4, 3, 2):
        x = keras_conv(g, inputs[f"C{level}"], layer.laterals[level - 2])
        if top_down is not None:
            x = x + _double(g, top_down)
        top_down = x
        features[f"P{level}"] = keras_conv(g, x, layer.outputs[level - 2])
    # Every second cell.
    features["P6"] = g.op("MaxPool", features["P5"], kernel_shape=[1, 1], strides=[2, 2])
    return {name: features[name] for name in sorted(features)}


def branches(g: Graph, features: Features, groups: int) -> tuple[Features, Features]:
    """`models.fpn.branch_features`."""
    if groups == 1:
        return features, features
    halves = {
        name: g.op("Split", x, outputs=2, axis=1, num_outputs=2) for name, x in features.items()
    }
    first, second = ({name: pair[i] for name, pair in halves.items()} for i in range(2))
    return first, second


def semantic_head(g: Graph, features: Features, head: SemanticHead) -> Value:
    """ "P2".."P5" -> logits `[B, S, H/4, W/4]`."""
    levels = []
    for i, branch in enumerate(head.branches):
        x = features[f"P{i + 2}"]
        for layer in branch:
            x = conv_norm(g, x, layer)
            if i > 0 and head.design == "staged":
                x = upsample(g, x, 2)
        if i > 0 and head.design == "two_conv":
            x = upsample(g, x, 2**i)
        levels.append(x)
    if head.fuse == "concat":
        x = g.concat(levels, axis=1)
    else:
        x = levels[0]
        for level in levels[1:]:
            x = x + level
    return keras_conv(g, x, head.predictor)


def rpn_head(g: Graph, features: Features, head: RPNHead) -> tuple[list[Value], list[Value]]:
    """ "P2".."P6" -> objectness `[B, h w A]` and deltas `[B, h w A, 4]` of each level."""
    logits, deltas = [], []
    for level in sorted(features):
        x = keras_conv(g, features[level], head.conv)
        by_cell = [
            g.op("Transpose", keras_conv(g, x, layer), perm=[0, 2, 3, 1])
            for layer in (head.objectness, head.deltas)
        ]
        logits.append(g.op("Reshape", by_cell[0], [0, -1]))
        deltas.append(g.reshape(by_cell[1], g.size(x, 0), -1, 4))
    return logits, deltas


def upsample(g: Graph, x: Value, factor: int) -> Value:
    """`ops.resize.upsample_bilinear`."""
    scales = np.array([1, 1, factor, factor], np.float32)
    return g.op("Resize", x, None, scales, mode="linear")


def _double(g: Graph, x: Value) -> Value:
    """Repeats each cell twice along both axes."""
    return g.op(
        "Resize",
        x,
        None,
        np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
