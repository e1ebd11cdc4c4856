"""Functional Keras networks as ONNX nodes, layer by layer, NCHW: what backbones are made of."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_panoptic_fpn.backbones.backbone import LEVELS
from tf_panoptic_fpn.backbones.drop_path import DropPath
from tf_panoptic_fpn.backbones.mix_transformer import ReducedAttention
from tf_panoptic_fpn.backbones.network import NetworkBackbone
from tf_panoptic_fpn.backbones.swin_transformer import PatchMerging, WindowAttention
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value
from tf_panoptic_fpn.onnx_graph.layers import Features, array
from tf_panoptic_fpn.onnx_graph.map_attention import (
    dense_of_maps,
    layer_norm_of_maps,
    patch_merging,
    reduced_attention,
    window_attention,
)

Layer = Any  # of Keras; each writer knows which
Write = Callable[[Graph, Any, Any], Any]  # a `Value`, or a list of them


def network(g: Graph, x: Value, backbone: NetworkBackbone) -> Features:
    """Normalised images -> "C2".."C5"."""
    if backbone.bgr:
        x = g.op("Gather", x, np.array([2, 1, 0]), axis=1)
    return dict(zip(LEVELS, _run(g, [x], backbone.network), strict=True))


def check_network(model: keras.Model) -> None:
    """Raises ConfigError, by name, for a layer that cannot be written."""
    for operation in _functional(model).operations:
        if _writer(operation) is None:
            raise ConfigError(
                f"ONNX export knows no layer of type {type(operation).__name__}, which is in "
                f"`model.backbone`: {operation.name}"
            )
        if isinstance(operation, keras.Model):
            check_network(operation)


def _run(g: Graph, inputs: list[Value], model: keras.Model) -> list[Value]:
    """Writes a functional model's operations in their order."""
    model = _functional(model)
    known: dict[int, Any] = dict(zip(map(id, model.inputs), inputs, strict=True))
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            given = [
                known[id(value)] if isinstance(value, keras.KerasTensor) else value
                for value in keras.tree.flatten(node.arguments.args)
            ]
            write = _writer(node.operation)
            assert write is not None  # by `check_network`
            written = write(g, given, node.operation)
            values = written if isinstance(written, list) else [written]
            known |= dict(zip(map(id, node.output_tensors), values, strict=True))
    return [known[id(output)] for output in model.outputs]


def _functional(model: keras.Model) -> keras.Model:
    return model._functional if isinstance(model, keras.Sequential) else model


def _writer(operation: Any) -> Write | None:
    for kind in type(operation).__mro__:
        if kind.__name__ in WRITERS:
            return WRITERS[kind.__name__]
    return None


def any_conv(g: Graph, x: list[Value], layer: Layer) -> Value:
    kernel = array(layer.kernel)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        groups, kernel = kernel.shape[2], kernel.transpose(0, 1, 3, 2)
    else:
        groups = layer.groups
    bias = array(layer.bias) if layer.use_bias else None
    dilations = list(layer.dilation_rate)
    attributes: dict[str, Any] = {"pads": [0] * 4}
    if layer.padding == "same" and max(dilations) > 1:  # of stride 1, and not for `auto_pad`
        wide = [d * (size - 1) for d, size in zip(dilations, kernel.shape[:2], strict=True)]
        attributes = {"pads": [pad // 2 for pad in wide] + [pad - pad // 2 for pad in wide]}
    elif layer.padding == "same":  # Keras pads a stride on the right and bottom only.
        attributes = {"auto_pad": "SAME_UPPER"}
    y = g.op(
        "Conv",
        x[0],
        kernel.transpose(3, 2, 0, 1),
        bias,
        kernel_shape=list(kernel.shape[:2]),
        strides=list(layer.strides),
        dilations=dilations,
        group=groups,
        **attributes,
    )
    return activate(g, y, layer.activation)


def activate(g: Graph, x: Value, function: Any) -> Value:
    name = getattr(function, "__name__", str(function))
    if name == "linear":
        return x
    if name in ("relu", "sigmoid"):
        return g.op(name.capitalize(), x)
    if name == "relu6":
        return g.op("Clip", x, np.float32(0), np.float32(6))
    if name in ("silu", "swish"):
        return x * g.op("Sigmoid", x)
    if name in ("hard_silu", "hard_swish"):
        return x * (g.op("Clip", x + 3.0, np.float32(0), np.float32(6)) / 6.0)
    if name == "leaky_relu":
        return g.op("LeakyRelu", x, alpha=0.2)
    if name == "gelu":
        return gelu(g, x)
    raise ConfigError(f"ONNX export knows no activation {name}, which is in `model.backbone`")


def gelu(g: Graph, x: Value, approximate: bool = False) -> Value:
    if approximate:
        cubic = (x * x * 0.044715 + 1.0) * x
        return x * 0.5 * (g.op("Tanh", cubic * float(np.sqrt(2 / np.pi))) + 1.0)
    return x * 0.5 * (g.op("Erf", x * float(np.sqrt(0.5))) + 1.0)


def _batch_norm(g: Graph, x: list[Value], layer: Layer) -> Value:
    variance = array(layer.moving_variance).astype(np.float64) + layer.epsilon
    scale = (array(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance)
    shift = (array(layer.beta) if layer.center else 0.0) - array(layer.moving_mean) * scale
    scale, shift = (v.astype(np.float32)[:, None, None] for v in (scale, shift))
    return x[0] * scale + shift


def _pool(g: Graph, x: list[Value], layer: Layer) -> Value:
    kind = "MaxPool" if "Max" in type(layer).__name__ else "AveragePool"
    same = layer.padding == "same"
    attributes: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if same else {"pads": [0] * 4}
    return g.op(
        kind, x[0], kernel_shape=list(layer.pool_size), strides=list(layer.strides), **attributes
    )


def _zero_padding(g: Graph, x: list[Value], layer: Layer) -> Value:
    rows, columns = layer.padding
    return _padded(g, x[0], rows, columns, 0.0)


def _pad(g: Graph, x: list[Value], operation: Any) -> Value:
    _, rows, columns, _ = operation.pad_width
    return _padded(g, x[0], rows, columns, getattr(operation, "constant_values", 0) or 0)


def _padded(
    g: Graph, x: Value, rows: tuple[int, int], columns: tuple[int, int], value: float
) -> Value:
    # All axes are named. Of some, onnxruntime takes the pads for those of all where it moves a
    # transposition past; of none, it makes the pad part of a convolution and loses what it reads.
    (top, bottom), (left, right) = rows, columns
    pads = [0, 0, top, left, 0, 0, bottom, right]
    return g.op("Pad", x, pads, np.float32(value), [0, 1, 2, 3])


def _mean(g: Graph, x: list[Value], layer: Layer) -> Value:
    y = g.op("ReduceMean", x[0], [2, 3], keepdims=1)
    return y if layer.keepdims else g.op("Squeeze", y, [2, 3])


def _to_map(g: Graph, x: list[Value], layer: Layer) -> Value:
    """`[B, C]` -> `[B, C, 1, 1]`, as a squeezed map is brought to."""
    if tuple(layer.target_shape[:2]) != (1, 1):
        raise ConfigError(f"ONNX export knows no Reshape to {layer.target_shape}")
    return g.op("Reshape", x[0], [0, -1, 1, 1])


def _split(g: Graph, x: list[Value], operation: Any) -> Any:
    """Of channels."""
    count = operation.indices_or_sections
    if not isinstance(count, int) or operation.axis not in (-1, 3):
        raise ConfigError(f"ONNX export knows no Split at {count} of axis {operation.axis}")
    return g.op("Split", x[0], outputs=count, axis=1, num_outputs=count)


def _operand(x: Any) -> Any:
    return x if isinstance(x, Value) else np.float32(x)


def _add(g: Graph, x: list[Value], operation: Any) -> Value:
    first, *others = x
    total = first if isinstance(first, Value) else g.constant(np.float32(first))
    for other in others:
        total = total + _operand(other)
    return total


def _multiply(g: Graph, x: list[Value], operation: Any) -> Value:
    values = [v if isinstance(v, Value) else g.constant(np.float32(v)) for v in x]
    total = values[0]
    for value in values[1:]:
        total = total * value
    return total


# By the name of a layer's or an operation's class, or of one that it is of.
WRITERS: dict[str, Write] = {
    "Activation": lambda g, x, layer: activate(g, x[0], layer.activation),
    "Add": _add,
    "AveragePooling2D": _pool,
    "BatchNormalization": _batch_norm,
    "Concatenate": lambda g, x, layer: g.concat(x, axis=1),
    "Conv2D": any_conv,
    "Dense": lambda g, x, layer: activate(g, dense_of_maps(g, x[0], layer), layer.activation),
    "DepthwiseConv2D": any_conv,
    "Dropout": lambda g, x, layer: x[0],
    DropPath.__name__: lambda g, x, layer: x[0],
    "Functional": lambda g, x, model: _run(g, x, model)[0],
    "Gelu": lambda g, x, operation: gelu(g, x[0], operation.approximate),
    "GlobalAveragePooling2D": _mean,
    "InputLayer": lambda g, x, layer: x[0],
    "LayerNormalization": lambda g, x, layer: layer_norm_of_maps(g, x[0], layer),
    "LayerScale": lambda g, x, layer: x[0] * array(layer.gamma)[:, None, None],
    "LeakyReLU": lambda g, x, layer: g.op("LeakyRelu", x[0], alpha=float(layer.negative_slope)),
    "MaxPooling2D": _pool,
    "Multiply": _multiply,
    "Pad": _pad,
    PatchMerging.__name__: patch_merging,
    "ReLU": lambda g, x, layer: _clipped(g, x[0], layer),
    ReducedAttention.__name__: reduced_attention,
    "Reshape": _to_map,
    "Sequential": lambda g, x, model: _run(g, x, model)[0],
    "Split": _split,
    WindowAttention.__name__: window_attention,
    "ZeroPadding2D": _zero_padding,
}


def _clipped(g: Graph, x: Value, layer: Layer) -> Value:
    highest = None if layer.max_value is None else np.float32(layer.max_value)
    return g.op("Clip", x, np.float32(0), highest)
