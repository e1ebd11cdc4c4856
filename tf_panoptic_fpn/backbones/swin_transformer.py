"""The Swin transformer of KerasHub as a network of maps, for images of any size."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_panoptic_fpn.backbones.drop_path import DropPath, drop_path_rates
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor

EPSILON = 1e-5
APART = -100.0  # what is added to the logits of cells that a shift brought side by side


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class WindowAttention(keras.layers.Layer):
    """Each cell of a map attends to those of its square window.

    Zeros are put below and on the right up to whole windows. A map that is not above a window on
    one of its sides is not shifted.

    Args:
        dim: int C.
        heads: int.
        window: int, cells of a side.
        shift: int, cells that the windows are shifted by, below `window`.
        qkv_bias: bool.

    Call: float `[B, H, W, C]` -> the same shape.

    Reference: Swin Transformer, arXiv:2103.14030, section 3.2.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, qkv_bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dim, self.heads, self.window, self.shift = dim, heads, window, shift
        self.qkv_bias = qkv_bias
        options = {"dtype": self.dtype_policy}
        self.qkv = keras.layers.Dense(3 * dim, use_bias=qkv_bias, name="qkv", **options)
        self.output_dense = keras.layers.Dense(dim, name="output", **options)

    def build(self, input_shape: Shape) -> None:
        self.positions = self.add_weight(
            shape=((2 * self.window - 1) ** 2, self.heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="positions",
        )
        for layer in (self.qkv, self.output_dense):
            layer.build((None, None, None, self.dim))

    def call(self, inputs: Tensor) -> Tensor:
        batch, height, width, _ = sides(inputs)
        side, area, depth = self.window, self.window**2, self.dim // self.heads
        shift = ops.where(ops.minimum(height, width) > side, self.shift, 0)
        down, right = (_Windows(extent, side, shift) for extent in (height, width))
        x = down.taken(right.taken(inputs, axis=2), axis=1)
        cells = (batch, down.count, side, right.count, side, 3, self.heads, depth)
        qkv = ops.transpose(ops.reshape(self.qkv(x), cells), (5, 0, 1, 3, 6, 2, 4, 7))
        windows = (3, batch, down.count * right.count, self.heads, area, depth)
        query, key, value = ops.unstack(ops.reshape(qkv, windows), axis=0)
        logits = ops.matmul(query * depth**-0.5, ops.swapaxes(key, -1, -2))
        logits = logits + self.bias(logits.dtype)
        regions = 3 * down.regions[:, None, :, None] + right.regions[:, None]
        regions = ops.reshape(regions, (-1, 1, 1, area))
        apart = ops.not_equal(regions, ops.swapaxes(regions, -1, -2))
        mixed = ops.matmul(ops.softmax(logits + APART * ops.cast(apart, logits.dtype)), value)
        shape = (batch, down.count, right.count, self.heads, side, side, depth)
        x = ops.transpose(ops.reshape(mixed, shape), (0, 1, 4, 2, 5, 3, 6))
        x = ops.reshape(x, (batch, down.count * side, right.count * side, self.dim))
        return self.output_dense(ops.take(ops.take(x, down.back, axis=1), right.back, axis=2))

    def bias(self, dtype: str) -> Tensor:
        """Returns `[heads, window^2, window^2]`, what is added for cells of a window by place."""
        rows, columns = np.divmod(np.arange(self.window**2), self.window)
        down, right = (x[:, None] - x + self.window - 1 for x in (rows, columns))
        places = down * (2 * self.window - 1) + right
        return ops.cast(ops.transpose(ops.take(self.positions, places, axis=0), (2, 0, 1)), dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("dim", "heads", "window", "shift", "qkv_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _Windows:
    """Windows along one axis: `count`; of each cell, int32 `[count, side]`, `regions`, which differ
    where a shift brought cells side by side; and `back`, where each cell of the map has gone."""

    def __init__(self, extent: Any, side: int, shift: Tensor) -> None:
        self.count = -(-extent // side)
        padded = self.count * side
        places = ops.arange(padded, dtype="int32")
        sources = (places + shift) % padded
        self.there, self.sources = sources < extent, ops.minimum(sources, extent - 1)
        regions = ops.cast(places >= padded - side, "int32")
        regions = regions + ops.cast(places >= padded - shift, "int32")
        self.regions = ops.reshape(regions, (-1, side))
        self.back = (ops.arange(extent, dtype="int32") - shift + padded) % padded

    def taken(self, x: Tensor, axis: int) -> Tensor:
        """The cells of `[B, H, W, C]` along an axis, shifted; zeros where there are none."""
        there = ops.reshape(ops.cast(self.there, x.dtype), (-1, *(1,) * (3 - axis)))
        return ops.take(x, self.sources, axis=axis) * there


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class PatchMerging(keras.layers.Layer):
    """Float `[B, H, W, C]` -> `[B, H/2, W/2, 4 C]`: of four cells the upper left, lower left, upper
    right and lower right. H and W are even."""

    def call(self, inputs: Tensor) -> Tensor:
        batch, height, width, channels = sides(inputs)
        x = ops.reshape(inputs, (batch, height // 2, 2, width // 2, 2, channels))
        x = ops.transpose(x, (0, 1, 3, 4, 2, 5))
        return ops.reshape(x, (batch, height // 2, width // 2, 4 * channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        sizes = [None if size is None else size // 2 for size in (height, width)]
        return (batch, *sizes, 4 * channels)


def swin_network(arguments: Mapping[str, Any], drop_path: float) -> keras.Model:
    """Returns a `SwinTransformerBackbone`, which KerasHub has for one size of images.

    Of its stages the last has KerasHub's own norm behind it, the others, before their cells are
    merged, new ones, as the authors' detectors have. Dropout is not there.

    Args:
        arguments: those of the class.
        drop_path: float, see `drop_path_rates`.

    Returns:
        A functional `keras.Model`, from `[B, H, W, 3]`, H and W multiples of 32, to a map a stage.
    """
    dim, patch = arguments["embed_dim"], arguments.get("patch_size", 4)
    depths, window = arguments["depths"], arguments["window_size"]
    rates = iter(drop_path_rates(drop_path, sum(depths)))
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(dim, patch, patch, name="patches")(image)
    if arguments.get("patch_norm", True):
        x = _norm(x, "patches_norm")
    maps = []
    for i, (depth, heads) in enumerate(zip(depths, arguments["num_heads"], strict=True)):
        if i:
            x = _norm(PatchMerging(name=f"stage{i}_merging")(x), f"stage{i}_merging_norm")
            x = keras.layers.Dense(2**i * dim, use_bias=False, name=f"stage{i}_reduction")(x)
        for k in range(depth):
            shift = window // 2 if k % 2 else 0
            attention = WindowAttention(
                2**i * dim,
                heads,
                window,
                shift,
                arguments.get("qkv_bias", True),
                name=f"stage{i}_block{k}_attention",
            )
            hidden = int(2**i * dim * arguments.get("mlp_ratio", 4.0))
            x = _block(x, attention, hidden, next(rates), f"stage{i}_block{k}")
        maps.append(_norm(x, f"stage{i}_norm"))
    return keras.Model(image, maps, name="swin_transformer")


def take_swin_weights(network: keras.Model, source: keras.Model) -> None:
    """Gives a `swin_network` the weights of a `SwinTransformerBackbone`."""
    layers = {"patches": source.patch_embedding.proj, "patches_norm": source.patch_embedding.norm}
    for i, stage in enumerate(source.stages):
        for k, block in enumerate(stage.blocks):
            name = f"stage{i}_block{k}"
            layers |= {
                f"{name}_norm1": block.norm1,
                f"{name}_attention": block.attn,
                f"{name}_norm2": block.norm2,
                f"{name}_fc1": block.mlp.fc1,
                f"{name}_fc2": block.mlp.fc2,
            }
        if stage.downsample is not None:
            layers[f"stage{i + 1}_merging_norm"] = stage.downsample.norm
            layers[f"stage{i + 1}_reduction"] = stage.downsample.reduction
    layers[f"stage{len(source.stages) - 1}_norm"] = source.norm
    for name, layer in layers.items():
        if layer is not None:
            network.get_layer(name).set_weights(layer.get_weights())


def _block(x: Tensor, attention: WindowAttention, hidden: int, rate: float, name: str) -> Tensor:
    y = attention(_norm(x, f"{name}_norm1"))
    x = keras.layers.Add()([x, DropPath(rate, name=f"{name}_drop_path1")(y)])
    y = _norm(x, f"{name}_norm2")
    y = keras.layers.Dense(hidden, activation="gelu", name=f"{name}_fc1")(y)
    y = keras.layers.Dense(x.shape[-1], name=f"{name}_fc2")(y)
    return keras.layers.Add()([x, DropPath(rate, name=f"{name}_drop_path2")(y)])


def _norm(x: Tensor, name: str) -> Tensor:
    return keras.layers.LayerNormalization(epsilon=EPSILON, name=name)(x)
