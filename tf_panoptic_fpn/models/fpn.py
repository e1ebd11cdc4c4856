"""Feature pyramid network (Lin et al., arXiv:1612.03144)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import Conv2D, ConvNorm, separable_conv
from tf_panoptic_fpn.ops.sides import add_maps, sides
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

XAVIER = {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"}  # +-sqrt(3 / fan_in)


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class GroupedConv2D(Conv2D):
    """Keras stores the weights of a list's layers by their class: version 0.1 had this one."""


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class FPN(keras.layers.Layer):
    """C2..C5 -> P2..P6: 1x1 laterals, nearest x2 top-down sum, 3x3 outputs, no ReLU.

    Args:
        channels: int, channels of every level.
        groups: int; each group of channels is a pyramid of its own, that reads all of C2..C5 and
            shares nothing with the others.
        norm: "none", or "group_norm" after each convolution, which then has no bias.
        norm_groups: int, groups of the norm.
        separable: bool, whether the 3x3 are separable convolutions.

    Call: dict "C2".."C5" -> dict "P2".."P6" of `[B, h, w, channels]`; P6 is every second cell of
    P5.
    """

    def __init__(
        self,
        channels: int = 256,
        groups: int = 1,
        norm: str = "none",
        norm_groups: int = 32,
        separable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.groups = groups
        self.norm = norm
        self.norm_groups = norm_groups
        self.separable = separable
        self.laterals = [self._conv(1, 1, f"lateral{level}") for level in range(2, 6)]
        self.outputs = [self._conv(3, groups, f"output{level}") for level in range(2, 6)]

    def _conv(self, kernel_size: int, groups: int, name: str) -> keras.layers.Layer:
        separable = self.separable and kernel_size > 1
        if self.norm != "none":
            return ConvNorm(
                self.channels,
                kernel_size,
                self.norm,
                groups=groups,
                relu=False,
                norm_groups=self.norm_groups,
                initializer=XAVIER,
                separable=separable,
                dtype=self.dtype_policy,
                name=name,
            )
        if separable:
            return separable_conv(self.channels, kernel_size, XAVIER, self.dtype_policy, name)
        return GroupedConv2D(
            self.channels,
            kernel_size,
            groups=groups,
            padding="same",
            kernel_initializer=keras.initializers.VarianceScaling(**XAVIER),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: dict[str, Shape]) -> None:
        for i, (lateral, output) in enumerate(zip(self.laterals, self.outputs, strict=True)):
            shape = input_shape[f"C{i + 2}"]
            lateral.build(shape)
            output.build((*shape[:-1], self.channels))

    def call(self, inputs: Tensors) -> Tensors:
        features = {}
        top_down = None
        for level in (5, 4, 3, 2):
            x = self.laterals[level - 2](inputs[f"C{level}"])
            if top_down is not None:
                x = add_maps(x, _double(top_down))
            top_down = x
            features[f"P{level}"] = self.outputs[level - 2](x)
        features["P6"] = features["P5"][:, ::2, ::2]
        return {name: features[name] for name in sorted(features)}

    def compute_output_shape(self, input_shape: dict[str, Shape]) -> dict[str, Shape]:
        shapes = {f"P{i}": (*input_shape[f"C{i}"][:-1], self.channels) for i in range(2, 6)}
        batch, height, width, channels = shapes["P5"]
        halves = [None if size is None else (size + 1) // 2 for size in (height, width)]
        shapes["P6"] = (batch, *halves, channels)
        return shapes

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "groups": self.groups,
            "norm": self.norm,
            "norm_groups": self.norm_groups,
            "separable": self.separable,
        }


def branch_features(features: Tensors, groups: int) -> tuple[Tensors, Tensors]:
    """Returns the feature maps of the instance branch and those of the semantic branch.

    Args:
        features: dict "P2".."P6" of `[B, h, w, C]`.
        groups: 1, both read all channels; or 2, the first half and the second.
    """
    if groups == 1:
        return features, features
    halves = {name: ops.split(x, 2, axis=-1) for name, x in features.items()}
    first, second = ({name: pair[i] for name, pair in halves.items()} for i in range(2))
    return first, second


def _double(x: Tensor) -> Tensor:
    """Repeats each cell of `[B, h, w, C]` twice along both axes."""
    batch, height, width, channels = sides(x)
    x = ops.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return ops.reshape(x, (batch, 2 * height, 2 * width, channels))
