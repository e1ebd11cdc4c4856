"""Plain vision transformers and their simple pyramid as ONNX nodes: tokens are `[B, N, D]`."""

import math
from typing import Any

import numpy as np

from tf_panoptic_fpn.backbones.backbone import LEVELS
from tf_panoptic_fpn.backbones.simple_pyramid import PositionEmbedding, SimplePyramid
from tf_panoptic_fpn.backbones.vision_transformer import CELL, VisionTransformer
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value
from tf_panoptic_fpn.onnx_graph.layers import Features, array, attention, layer_norm
from tf_panoptic_fpn.onnx_graph.map_attention import layer_norm_of_maps
from tf_panoptic_fpn.onnx_graph.network import activate, any_conv, gelu

Layer = Any  # of KerasHub; each writer knows which
Rotation = tuple[Value, Value] | None  # cosines and sines, `[N, D / heads]`


def vision_transformer(g: Graph, x: Value, backbone: VisionTransformer) -> Features:
    """Normalised images -> "C2".."C5"."""
    rows, columns = (g.size(x, axis) // CELL for axis in (2, 3))
    side = backbone.patch_size
    if side != CELL:
        sizes = g.concat([g.op("Shape", x, end=2), rows * side, columns * side])
        x = g.op("Resize", x, None, None, sizes, mode="linear")
    x = tokens(g, x, rows, columns, backbone)
    cells = g.slice(x, _num_prefix(backbone), np.iinfo(np.int64).max, axis=1)
    maps = g.op("Transpose", cells, perm=[0, 2, 1])
    return _simple_pyramid(g, g.reshape(maps, 0, 0, rows, columns), backbone.pyramid)


def tokens(g: Graph, x: Value, rows: Value, columns: Value, backbone: VisionTransformer) -> Value:
    """`VisionTransformer.tokens`, of a grid of rows and columns, int64 `[1]`."""
    embeddings = backbone.transformer.embeddings
    patches = any_conv(g, [x], embeddings.patch_embeddings.projection)
    x = g.op("Transpose", g.op("Reshape", patches, [0, backbone.dim, -1]), perm=[0, 2, 1])
    first = array(embeddings.cls_token)
    rotation = None
    if backbone.positions is not None:
        x = x + _positions(g, backbone.positions, rows, columns)
        first = first + array(backbone.positions.first)
    else:
        rotation = _rotation(g, backbone, rows, columns)
    if backbone.transformer.num_register_tokens:
        first = np.concatenate([first, array(embeddings.register_tokens)], axis=1)
    prefix = g.op("Expand", first, g.shape(g.size(x, 0), 1, 1))
    x = g.concat([prefix, x], axis=1)
    for block in backbone.blocks:
        y = _attention(g, layer_norm(g, x, block.norm1), block.attention, rotation)
        x = x + y * array(block.layer_scale1.lambda1)
        y = _mlp(g, layer_norm(g, x, block.norm2), block.mlp)
        x = x + y * array(block.layer_scale2.lambda1)
    return layer_norm(g, x, backbone.transformer.layernorm)


def _num_prefix(backbone: VisionTransformer) -> int:
    return 1 + backbone.transformer.num_register_tokens


def _positions(g: Graph, layer: PositionEmbedding, rows: Value, columns: Value) -> Value:
    """`PositionEmbedding.interpolated`."""
    grid = g.constant(array(layer.grid))
    along_rows = g.op("MatMul", _cubic_weights(g, layer.side, rows), g.op("Flatten", grid))
    cells = g.reshape(along_rows, rows, layer.side, layer.dim)
    cells = g.op("MatMul", _cubic_weights(g, layer.side, columns), cells)
    return g.op("Reshape", cells, [1, -1, layer.dim])


def _cubic_weights(g: Graph, extent: int, new_extent: Value) -> Value:
    """`backbones.simple_pyramid.cubic_weights`."""
    scale = g.op("Div", float(extent), new_extent.cast("float32"))
    points = (g.range(new_extent, "float32") + 0.5) * scale - 0.5
    distance = g.op("Abs", g.op("Unsqueeze", points, [1]) - np.arange(extent, dtype=np.float32))
    square = distance * distance
    near = (distance * 1.5 - 2.5) * square + 1.0
    far = ((distance * -0.5 + 2.5) * distance - 4.0) * distance + 2.0
    outside = g.where(distance <= 2.0, far, 0.0)
    weights = g.where(distance <= 1.0, near, outside)
    return weights / g.op("ReduceSum", weights, [1], keepdims=1)


def _rotation(g: Graph, backbone: VisionTransformer, rows: Value, columns: Value) -> Rotation:
    """DINOv3's rotary embedding, of the patches; what is before them is not rotated."""
    frequencies = 2 * math.pi * array(backbone.transformer.rope_embedding.inv_freq)
    shape = g.shape(rows, columns, len(frequencies))
    angles = []
    for count, side in ((rows, (-1, 1, 1)), (columns, (1, -1, 1))):
        place = (g.range(count, "float32") + 0.5) / count.cast("float32") * 2.0 - 1.0
        angles.append(g.op("Expand", g.reshape(place, *side) * frequencies, shape))
    angle = g.op("Reshape", g.concat(angles * 2, axis=-1), [-1, 4 * len(frequencies)])
    before = np.zeros((_num_prefix(backbone), 4 * len(frequencies)), np.float32)
    angle = g.concat([before, angle])
    return g.op("Cos", angle), g.op("Sin", angle)


def _attention(g: Graph, x: Value, layer: Layer, rotation: Rotation) -> Value:
    inner: Layer = getattr(layer, "attention", layer)  # DINOv2's holds one of Keras
    heads = inner.num_heads
    query, key, value = (
        _heads(g, _dense(g, x, dense), heads)
        for dense in (inner.query_dense, inner.key_dense, inner.value_dense)
    )
    if rotation is not None:
        query, key = (_rotate(g, v, rotation) for v in (query, key))
    scale = (inner.query_dense.kernel.shape[0] / heads) ** -0.5
    mixed = attention(g, query, key, value, scale)
    return _dense(g, mixed, inner.output_dense, inputs_of_heads=True)


def _heads(g: Graph, x: Value, heads: int) -> Value:
    """`[B, N, D]` -> `[B, heads, N, D / heads]`."""
    return g.op("Transpose", g.op("Reshape", x, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def _rotate(g: Graph, x: Value, rotation: tuple[Value, Value]) -> Value:
    cosines, sines = rotation
    first, second = g.op("Split", x, outputs=2, axis=-1, num_outputs=2)
    return x * cosines + g.concat([g.op("Neg", second), first], axis=-1) * sines


def _dense(g: Graph, x: Value, layer: Layer, inputs_of_heads: bool = False) -> Value:
    """A dense layer of tokens, whose kernel may know heads."""
    kernel = array(layer.kernel)
    rows = math.prod(kernel.shape[:-1]) if inputs_of_heads else kernel.shape[0]
    x = g.op("MatMul", x, kernel.reshape(rows, -1))
    if layer.bias is not None:
        x = x + array(layer.bias).reshape(-1)
    return activate(g, x, layer.activation)


def _mlp(g: Graph, x: Value, layer: Layer) -> Value:
    kind = type(layer).__name__
    if kind == "DINOV2MLP":
        return _dense(g, _dense(g, x, layer.fc1), layer.fc2)
    if kind == "DINOV2SwiGLUFFN":
        gate, up = g.op("Split", _dense(g, x, layer.weights_in), outputs=2, axis=-1, num_outputs=2)
        return _dense(g, activate(g, gate, "silu") * up, layer.weights_out)
    if kind == "DINOV3MLP":
        return _dense(g, _dense(g, x, layer.up_proj), layer.down_proj)
    if kind == "DINOV3GatedMLP":
        y = _dense(g, x, layer.gate_proj) * _dense(g, x, layer.up_proj)
        return _dense(g, y, layer.down_proj)
    raise ConfigError(f"ONNX export knows no {kind}, which is in `model.backbone`")


def _simple_pyramid(g: Graph, x: Value, layer: SimplePyramid) -> Features:
    y = layer_norm_of_maps(g, _deconv(g, x, layer.up2), layer.norm2)
    c2 = _deconv(g, gelu(g, y), layer.up2_again)
    c5 = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return dict(zip(LEVELS, (c2, _deconv(g, x, layer.up3), x, c5), strict=True))


def _deconv(g: Graph, x: Value, layer: Layer) -> Value:
    kernel = array(layer.kernel).transpose(3, 2, 0, 1)
    bias = array(layer.bias)
    return g.op("ConvTranspose", x, kernel, bias, kernel_shape=[2, 2], strides=[2, 2])
