"""The attention of hierarchical transformers (MiT, Swin) as ONNX nodes: maps are NCHW."""

from typing import Any

import keras
import numpy as np

from tf_panoptic_fpn.backbones.mix_transformer import ReducedAttention
from tf_panoptic_fpn.backbones.swin_transformer import APART, WindowAttention
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value
from tf_panoptic_fpn.onnx_graph.layers import array, attention, conv, layer_norm


def dense_of_maps(g: Graph, x: Value, layer: keras.layers.Dense) -> Value:
    """A dense layer of each cell, without its activation: a 1x1 convolution."""
    bias = array(layer.bias) if layer.use_bias else None
    return conv(g, x, array(layer.kernel)[None, None], bias)


def layer_norm_of_maps(g: Graph, x: Value, layer: keras.layers.LayerNormalization) -> Value:
    rows = layer_norm(g, g.op("Transpose", x, perm=[0, 2, 3, 1]), layer)
    return g.op("Transpose", rows, perm=[0, 3, 1, 2])


def reduced_attention(g: Graph, x: list[Value], layer: ReducedAttention) -> Value:
    """See `ReducedAttention`."""
    (fine,) = x
    coarse = fine
    if layer.ratio > 1:
        kernel = array(layer.reduce.kernel).transpose(3, 2, 0, 1)
        sides = [layer.ratio, layer.ratio]
        bias = array(layer.reduce.bias)
        coarse = g.op("Conv", fine, kernel, bias, kernel_shape=sides, strides=sides)
        coarse = layer_norm_of_maps(g, coarse, layer.norm)
    depth = layer.dim // layer.heads
    query, key, value = (
        _heads(g, dense_of_maps(g, maps, dense), layer.heads, depth)
        for maps, dense in ((fine, layer.query), (coarse, layer.key), (coarse, layer.value))
    )
    mixed = attention(g, query, key, value, depth**-0.5)
    mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1]), g.op("Shape", fine))
    return dense_of_maps(g, mixed, layer.output_dense)


def _heads(g: Graph, x: Value, heads: int, depth: int) -> Value:
    """`[B, heads depth, H, W]` -> `[B, heads, H W, depth]`."""
    by_head = g.reshape(x, g.size(x, 0), heads, depth, -1)
    return g.op("Transpose", by_head, perm=[0, 1, 3, 2])


def window_attention(g: Graph, x: list[Value], layer: WindowAttention) -> Value:
    """See `WindowAttention`."""
    (maps,) = x
    side, heads, depth = layer.window, layer.heads, layer.dim // layer.heads
    batch, height, width = (g.size(maps, axis) for axis in (0, 2, 3))
    shift = g.where(g.op("Min", height, width) > side, [layer.shift], [0])
    counts, regions, back = [], [], []
    for axis, extent in ((2, height), (3, width)):
        count = (extent + (side - 1)) // side
        padded = count * side
        places = g.range(padded)
        sources = (places + shift) % padded
        there = g.op("Less", sources, extent).cast("float32")
        maps = g.op("Gather", maps, g.op("Min", sources, extent - 1), axis=axis)
        maps = maps * (g.op("Unsqueeze", there, [1]) if axis == 2 else there)
        region = (places >= padded - side).cast("int64") + (places >= padded - shift).cast("int64")
        regions.append(region)
        back.append((g.range(extent) - shift + padded) % padded)
        counts.append(count)
    rows, columns = counts
    qkv = dense_of_maps(g, maps, layer.qkv)
    qkv = g.reshape(qkv, batch, 3, heads, depth, rows, side, columns, side)
    qkv = g.op("Transpose", qkv, perm=[1, 0, 4, 6, 2, 5, 7, 3])
    qkv = g.reshape(qkv, 3, batch, rows * columns, heads, side**2, depth)
    query, key, value = (g.op("Gather", qkv, i, axis=0) for i in range(3))
    key = g.op("Transpose", key, perm=[0, 1, 2, 4, 3])
    logits = g.op("MatMul", query * depth**-0.5, key)
    logits = logits + np.asarray(keras.ops.convert_to_numpy(layer.bias("float32")))
    logits = logits + _apart(g, regions, side, counts)
    mixed = g.op("MatMul", g.op("Softmax", logits, axis=-1), value)
    mixed = g.reshape(mixed, batch, rows, columns, heads, side, side, depth)
    mixed = g.op("Transpose", mixed, perm=[0, 3, 6, 1, 4, 2, 5])
    mixed = g.reshape(mixed, batch, layer.dim, rows * side, columns * side)
    for axis, places in zip((2, 3), back, strict=True):
        mixed = g.op("Gather", mixed, places, axis=axis)
    return dense_of_maps(g, mixed, layer.output_dense)


def _apart(g: Graph, regions: list[Value], side: int, counts: list[Value]) -> Value:
    """Float32 `[windows, 1, side^2, side^2]`, what keeps cells of other regions out."""
    down, right = regions
    both = g.op("Unsqueeze", down * 3, [1]) + right
    both = g.reshape(both, counts[0], side, counts[1], side)
    both = g.reshape(g.op("Transpose", both, perm=[0, 2, 1, 3]), -1, 1, 1, side**2)
    same = both.equals(g.op("Transpose", both, perm=[0, 1, 3, 2]))
    return g.where(same, np.float32(0), np.float32(APART))


def patch_merging(g: Graph, x: list[Value], layer: Any) -> Value:
    """See `PatchMerging`."""
    (maps,) = x
    height, width = (g.size(maps, axis) // 2 for axis in (2, 3))
    cells = g.reshape(maps, 0, 0, height, 2, width, 2)
    cells = g.op("Transpose", cells, perm=[0, 5, 3, 1, 2, 4])
    return g.reshape(cells, g.size(maps, 0), -1, height, width)
