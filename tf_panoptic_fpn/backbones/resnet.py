"""ResNet backbone (He et al., arXiv:1512.03385) with the outputs C2..C5."""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.backbone import LEVELS, Backbone, freeze
from tf_panoptic_fpn.backbones.conv_norm import ConvNorm
from tf_panoptic_fpn.backbones.deformable_conv import DeformableConvNorm
from tf_panoptic_fpn.ops.sides import add_maps
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResidualBlock(keras.layers.Layer):
    """ReLU(branch(x) + shortcut(x)); a subclass sets `conv1`, `conv2`, ... and `shortcut`."""

    @property
    def branch(self) -> list[ConvNorm]:
        return [self.conv1, self.conv2]

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for conv in self.branch:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        if self.shortcut is not None:
            self.shortcut.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        x = inputs
        for conv in self.branch:
            x = conv(x)
        return ops.relu(add_maps(x, inputs if self.shortcut is None else self.shortcut(inputs)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = input_shape
        for conv in self.branch:
            shape = conv.compute_output_shape(shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut; the stride is in the first."""

    def __init__(
        self,
        channels: int,
        norm: str,
        strides: int = 1,
        project: bool = False,
        norm_groups: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = {
            "channels": channels,
            "norm": norm,
            "strides": strides,
            "project": project,
            "norm_groups": norm_groups,
        }
        options = {"norm": norm, "norm_groups": norm_groups, "dtype": self.dtype_policy}
        self.conv1 = ConvNorm(channels, 3, strides=strides, **options, name="conv1")
        self.conv2 = ConvNorm(channels, 3, relu=False, **options, name="conv2")
        self.shortcut = None
        if project:
            self.shortcut = ConvNorm(
                channels, 1, strides=strides, relu=False, **options, name="shortcut"
            )


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class BottleneckBlock(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions and a shortcut.

    Args:
        channels: int, output channels.
        width: int, channels of the 3x3 convolution.
        norm: see `conv_norm.make_norm`.
        strides: int, in the first 1x1 (`stride_in_1x1`, the original ResNet) or in the 3x3.
        groups: int, groups of the 3x3 convolution (ResNeXt).
        project: bool, whether the shortcut is a 1x1 convolution.
        stride_in_1x1: bool.
        norm_groups: int, groups of a group norm.
        deformable: arguments of the 3x3's `DeformableConvNorm`, `deform_groups` and `modulated`;
            None for a plain convolution.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        norm: str,
        strides: int = 1,
        groups: int = 1,
        project: bool = False,
        stride_in_1x1: bool = True,
        norm_groups: int = 32,
        deformable: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = {
            "channels": channels,
            "width": width,
            "norm": norm,
            "strides": strides,
            "groups": groups,
            "project": project,
            "stride_in_1x1": stride_in_1x1,
            "norm_groups": norm_groups,
            "deformable": deformable,
        }
        stride_1x1, stride_3x3 = (strides, 1) if stride_in_1x1 else (1, strides)
        options = {"norm": norm, "norm_groups": norm_groups, "dtype": self.dtype_policy}
        self.conv1 = ConvNorm(width, 1, strides=stride_1x1, **options, name="conv1")
        conv_3x3 = ConvNorm if deformable is None else DeformableConvNorm
        self.conv2 = conv_3x3(
            width, 3, strides=stride_3x3, groups=groups, **options, **deformable or {}, name="conv2"
        )
        self.conv3 = ConvNorm(channels, 1, relu=False, **options, name="conv3")
        self.shortcut = None
        if project:
            self.shortcut = ConvNorm(
                channels, 1, strides=strides, relu=False, **options, name="shortcut"
            )

    @property
    def branch(self) -> list[ConvNorm]:
        return [self.conv1, self.conv2, self.conv3]


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ResNet(Backbone):
    """ResNet without its classifier: normalised image -> features of stride 4, 8, 16 and 32.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        norm: "frozen_affine" (a folded, frozen batch norm, for pretrained weights), "group_norm"
            (trained, for training from scratch) or "sync_batch_norm" (trained, over all replicas).
        freeze_at: int 0-5; the stem (1) and the stages res2..res5 (2..5) up to it are not trained.
        stride_in_1x1: bool; bottlenecks stride in their first 1x1 convolution, else in the 3x3.
        stem_channels: int, channels of the 7x7 stem.
        width: int, a quarter of the output channels of res2 (bottlenecks) or all of them (basic
            blocks); doubles at each stage.
        groups: int, groups of the bottlenecks' 3x3 convolutions; above 1 it is a ResNeXt.
        group_width: int, channels of such a group in res2; doubles at each stage. None: width.
        norm_groups: int, groups of a group norm.
        deformable_stages: of 2..5, the stages whose bottlenecks have a deformable 3x3.
        deformable_groups: int, groups of channels with offsets of their own.
        deformable_modulated: bool, whether a mask weighs each tap (version 2).

    Call: float `[B, H, W, 3]`, H and W multiples of 32 -> dict "C2".."C5" of
    `[B, H/4, W/4, C]`..`[B, H/32, W/32, 8C]`, C = 4 width (bottlenecks) or width (basic blocks).

    Raises:
        ValueError: if `depth` is none of the above, or a network of basic blocks has groups or
            deformable stages.

    Reference: Aggregated Residual Transformations, arXiv:1611.05431, for the ResNeXt.
    """

    def __init__(
        self,
        depth: int,
        norm: str = "frozen_affine",
        freeze_at: int = 2,
        stride_in_1x1: bool = True,
        stem_channels: int = 64,
        width: int = 64,
        groups: int = 1,
        group_width: int | None = None,
        norm_groups: int = 32,
        deformable_stages: Sequence[int] = (),
        deformable_groups: int = 1,
        deformable_modulated: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if depth not in BLOCKS:
            raise ValueError(f"`depth` must be one of {list(BLOCKS)}. Received: depth={depth}")
        if groups > 1 and depth < 50:
            raise ValueError(f"A ResNet-{depth} has no groups. Received: groups={groups}")
        if deformable_stages and (depth < 50 or not {2, 3, 4, 5} >= set(deformable_stages)):
            raise ValueError(
                "`deformable_stages` must be of 2 to 5, of a ResNet of bottlenecks. Received: "
                f"{deformable_stages} of a ResNet-{depth}"
            )
        self.config: dict[str, Any] = {
            "depth": depth,
            "norm": norm,
            "freeze_at": freeze_at,
            "stride_in_1x1": stride_in_1x1,
            "stem_channels": stem_channels,
            "width": width,
            "groups": groups,
            "group_width": group_width,
            "norm_groups": norm_groups,
            "deformable_stages": tuple(deformable_stages),
            "deformable_groups": deformable_groups,
            "deformable_modulated": deformable_modulated,
        }
        self.stem = ConvNorm(
            stem_channels,
            7,
            norm,
            strides=2,
            norm_groups=norm_groups,
            dtype=self.dtype_policy,
            name="stem",
        )
        channels_in, stages = stem_channels, []
        for i, num_blocks in enumerate(BLOCKS[depth]):
            stage, channels_in = self._make_stage(i, num_blocks, channels_in)
            stages.append(stage)
        self.res2, self.res3, self.res4, self.res5 = stages
        self.channels = [stage[-1].config["channels"] for stage in stages]
        freeze(self, freeze_at)

    def depths(self) -> list[list[keras.layers.Layer]]:
        return [[self.stem], self.res2, self.res3, self.res4, self.res5]

    def _make_stage(
        self, i: int, num_blocks: int, channels_in: int
    ) -> tuple[list[ResidualBlock], int]:
        config = self.config
        width = config["width"] * 2**i
        basic = config["depth"] < 50
        channels = width if basic else 4 * width
        inner_width = config["groups"] * (config["group_width"] or config["width"]) * 2**i
        deformable = None
        if i + 2 in config["deformable_stages"]:
            deformable = {
                "deform_groups": config["deformable_groups"],
                "modulated": config["deformable_modulated"],
            }
        blocks = []
        for j in range(num_blocks):
            options = {
                "norm": config["norm"],
                "norm_groups": config["norm_groups"],
                "strides": 2 if i > 0 and j == 0 else 1,
                "project": j == 0 and (i > 0 or channels_in != channels),
                "dtype": self.dtype_policy,
                "name": f"res{i + 2}_{j}",
            }
            if basic:
                blocks.append(BasicBlock(channels, **options))
            else:
                options["groups"] = config["groups"]
                options["stride_in_1x1"] = config["stride_in_1x1"]
                options["deformable"] = deformable
                blocks.append(BottleneckBlock(channels, inner_width, **options))
        return blocks, channels

    def build(self, input_shape: Shape) -> None:
        self.stem.build(input_shape)
        shape = self.stem.compute_output_shape(input_shape)
        for stage in (self.res2, self.res3, self.res4, self.res5):
            for block in stage:
                block.build(shape)
                shape = block.compute_output_shape(shape)

    def call(self, inputs: Tensor) -> Tensors:
        x = self.stem(inputs)
        # The stem ends in a ReLU, so zeros pad as well as minus infinity.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = ops.max_pool(x, 3, strides=2, padding="valid", data_format="channels_last")
        features = {}
        for level, stage in zip(LEVELS, self.depths()[1:], strict=True):
            for block in stage:
                x = block(x)
            features[level] = x
        return features

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


def block_names() -> list[str]:
    """Returns the names that the residual blocks of any depth have."""
    most = [max(counts) for counts in zip(*BLOCKS.values(), strict=True)]
    return [f"res{i}_{j}" for i, count in enumerate(most, start=2) for j in range(count)]


def make_backbone(
    name: str,
    norm: str,
    freeze_at: int,
    stride_in_1x1: bool,
    dtype: Any = None,
    **options: Any,
) -> ResNet:
    """Returns the backbone layer for a name such as "resnet50" or "resnext101_32x8d".

    Args:
        name: str.
        norm, freeze_at, stride_in_1x1, dtype: see `ResNet`; a ResNeXt strides in the 3x3.
        **options: others of `ResNet`.

    Raises:
        ValueError: if the name is unknown.
    """
    match = re.fullmatch(r"resnet(\d+)|resnext(\d+)_(\d+)x(\d+)d", name)
    if not match:
        raise ValueError(
            f"`backbone` must be 'resnet50', 'resnext101_32x8d', ... Received: {name!r}"
        )
    depth, *resnext = match.groups()
    options = {"norm": norm, "freeze_at": freeze_at, "dtype": dtype, "name": "backbone", **options}
    if depth:
        return ResNet(int(depth), stride_in_1x1=stride_in_1x1, **options)
    depth, groups, group_width = map(int, resnext)
    return ResNet(depth, stride_in_1x1=False, groups=groups, group_width=group_width, **options)
