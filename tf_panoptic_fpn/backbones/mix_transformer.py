"""The Mix Transformer (MiT) of KerasHub as a network of maps, for images of any size."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.drop_path import DropPath, drop_path_rates
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ReducedAttention(keras.layers.Layer):
    """Each cell of a map attends to the cells of a coarser one.

    Args:
        dim: int C.
        heads: int.
        ratio: int, cells of a side that a convolution reduces to one for keys and values.

    Call: float `[B, H, W, C]` -> the same shape.

    Reference: SegFormer, arXiv:2105.15203, section 3.1.
    """

    def __init__(self, dim: int, heads: int, ratio: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim, self.heads, self.ratio = dim, heads, ratio
        options = {"dtype": self.dtype_policy}
        # In the order of KerasHub's, whose weights are taken.
        self.query, self.key, self.value, self.output_dense = (
            keras.layers.Dense(dim, name=name, **options)
            for name in ("query", "key", "value", "output")
        )
        if ratio > 1:
            self.reduce = keras.layers.Conv2D(dim, ratio, ratio, name="reduce", **options)
            self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm", **options)

    def build(self, input_shape: Shape) -> None:
        for layer in self._layers:
            layer.build((None, None, None, self.dim))

    def call(self, inputs: Tensor) -> Tensor:
        coarse = self.norm(self.reduce(inputs)) if self.ratio > 1 else inputs
        query, key, value = (
            ops.reshape(x, (sides(x)[0], -1, self.heads, self.dim // self.heads))
            for x in (self.query(inputs), self.key(coarse), self.value(coarse))
        )
        mixed = ops.dot_product_attention(query, key, value)
        return self.output_dense(ops.reshape(mixed, sides(inputs)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {"dim": self.dim, "heads": self.heads, "ratio": self.ratio}
        return {**super().get_config(), **config}


def mix_network(arguments: Mapping[str, Any], drop_path: float) -> keras.Model:
    """Returns a `MiTBackbone`, which KerasHub has for square images of one size, without weights.

    Its weights come in KerasHub's order. KerasHub's dropout in the attention, which the published
    models were trained without, is not there.

    Args:
        arguments: those of the class.
        drop_path: float, see `drop_path_rates`.

    Returns:
        A functional `keras.Model`, from `[B, H, W, 3]`, H and W multiples of 32, to a map a stage.
    """
    names = ("hidden_dims", "patch_sizes", "strides", "num_heads", "sr_ratios", "depths")
    stages = zip(*(arguments.get(n, arguments.get(f"layerwise_{n}")) for n in names), strict=True)
    rates = iter(drop_path_rates(drop_path, sum(arguments["layerwise_depths"])))
    x = image = keras.Input((None, None, 3))
    maps = []
    for i, (dim, patch, stride, heads, ratio, depth) in enumerate(stages):
        x = keras.layers.ZeroPadding2D(patch // 2, name=f"stage{i}_padding")(x)
        x = keras.layers.Conv2D(dim, patch, stride, name=f"stage{i}_patches")(x)
        x = _norm(1e-5, f"stage{i}_patches_norm")(x)
        for k in range(depth):
            x = _block(x, heads, ratio, next(rates), f"stage{i}_block{k}")
        x = _norm(1e-5, f"stage{i}_norm")(x)
        maps.append(x)
    return keras.Model(image, maps, name="mix_transformer")


def _block(x: Tensor, heads: int, ratio: int, rate: float, name: str) -> Tensor:
    dim = x.shape[-1]
    y = _norm(1e-6, f"{name}_norm1")(x)
    y = ReducedAttention(dim, heads, ratio, name=f"{name}_attention")(y)
    x = keras.layers.Add()([x, DropPath(rate, name=f"{name}_drop_path1")(y)])
    y = _norm(1e-6, f"{name}_norm2")(x)
    y = keras.layers.Dense(4 * dim, name=f"{name}_fc1")(y)
    y = keras.layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(y)
    y = keras.layers.Dense(dim, name=f"{name}_fc2")(ops.gelu(y, approximate=True))
    return keras.layers.Add()([x, DropPath(rate, name=f"{name}_drop_path2")(y)])


def _norm(epsilon: float, name: str) -> keras.layers.Layer:
    return keras.layers.LayerNormalization(epsilon=epsilon, name=name)
