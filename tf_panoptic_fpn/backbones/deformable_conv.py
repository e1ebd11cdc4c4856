"""Layers of deformable convolution (arXiv:1703.06211, arXiv:1811.11168)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import MSRA, Conv2D, ConvNorm, add_bias
from tf_panoptic_fpn.ops.deformable_conv import deformable_conv
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.schema import Shape, Tensor


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class DeformableConv2D(keras.layers.Layer):
    """A convolution of odd sides, padded by half of them, whose taps move by learned offsets.

    The offsets come from a convolution of the same input, `offset`, which starts at zero: the layer
    is then a plain convolution, or half of one if modulated. They are geometry, and so are never in
    half precision.

    Args:
        filters: int, output channels.
        kernel_size: int, odd.
        strides: int.
        dilation: int.
        groups: int, groups of the convolution.
        deform_groups: int, equal parts of the input's channels, each with offsets of its own.
        modulated: bool, whether a sigmoid mask weighs each tap (version 2).
        use_bias: bool.

    Call: float `[B, H, W, C]` -> `[B, H', W', filters]`, H' = (H - 1) // strides + 1.

    Raises:
        ValueError: if `kernel_size` is even.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        deform_groups: int = 1,
        modulated: bool = False,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd. Received: kernel_size={kernel_size}")
        self.config = {
            "filters": filters,
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation": dilation,
            "groups": groups,
            "deform_groups": deform_groups,
            "modulated": modulated,
            "use_bias": use_bias,
        }
        self.num_offsets = 2 * deform_groups * kernel_size**2
        self.offset = Conv2D(
            self.num_offsets * 3 // 2 if modulated else self.num_offsets,
            kernel_size,
            strides=strides,
            dilation_rate=dilation,
            kernel_initializer="zeros",
            dtype=full_dtype(self.compute_dtype),
            name="offset",
        )
        self.pads = dilation * (kernel_size // 2)

    def build(self, input_shape: Shape) -> None:
        config = self.config
        size = (config["kernel_size"],) * 2
        self.kernel = self.add_weight(
            shape=(*size, input_shape[-1] // config["groups"], config["filters"]),
            initializer=keras.initializers.VarianceScaling(**MSRA),
            name="kernel",
        )
        self.bias = None
        if config["use_bias"]:
            self.bias = self.add_weight(
                shape=(config["filters"],), initializer="zeros", name="bias"
            )
        self.offset.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        config = self.config
        sides = (self.pads, self.pads)
        offsets = self.offset(ops.pad(inputs, ((0, 0), sides, sides, (0, 0))))
        mask = None
        if config["modulated"]:
            mask = ops.sigmoid(offsets[..., self.num_offsets :])
            offsets = offsets[..., : self.num_offsets]
        x = deformable_conv(
            inputs,
            offsets,
            self.kernel,
            mask,
            config["strides"],
            config["dilation"],
            config["deform_groups"],
        )
        return x if self.bias is None else add_bias(x, self.bias)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        strides = self.config["strides"]
        sizes = [None if size is None else (size - 1) // strides + 1 for size in (height, width)]
        return (batch, *sizes, self.config["filters"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class DeformableConvNorm(ConvNorm):
    """`ConvNorm` with a deformable convolution.

    Args:
        deform_groups, modulated: see `DeformableConv2D`.
        others: see `ConvNorm`.
    """

    def __init__(
        self, *args: Any, deform_groups: int = 1, modulated: bool = False, **kwargs: Any
    ) -> None:
        self.deformable: dict[str, Any] = {"deform_groups": deform_groups, "modulated": modulated}
        super().__init__(*args, **kwargs)

    def _make_conv(self) -> keras.layers.Layer:
        return DeformableConv2D(
            self.filters,
            self.kernel_size,
            self.strides,
            groups=self.groups,
            **self.deformable,
            dtype=self.dtype_policy,
            name="conv",
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.deformable}
