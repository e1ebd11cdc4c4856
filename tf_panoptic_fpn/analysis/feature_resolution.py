"""The ways to features of high resolution that the paper compares (arXiv:1901.02446, Figure 4)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import Conv2D, ConvNorm
from tf_panoptic_fpn.backbones.resnet import BLOCKS, BottleneckBlock, make_backbone
from tf_panoptic_fpn.models.fpn import FPN

NORM = "frozen_affine"
WIDTH = 64


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class DilatedBlock(BottleneckBlock):
    """A bottleneck whose 3x3 convolution is dilated.

    Args:
        dilation: int, distance of the convolution's taps.
        **kwargs: of `BottleneckBlock`.
    """

    def __init__(self, *args: Any, dilation: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config["dilation"] = dilation
        self.conv2.conv = Conv2D(
            self.conv2.filters,
            3,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            name="conv",
        )


def dilated_network(depth: int, output_stride: int) -> keras.Model:
    """A ResNet that keeps its resolution from some stage on and dilates instead (Figure 4b).

    Args:
        depth: 50, 101 or 152.
        output_stride: int, 8 or 16.

    Returns:
        Model of `[B, H, W, 3]`, H and W multiples of 32 -> `[B, H/output_stride,
        W/output_stride, 2048]`.

    Raises:
        ValueError: if `output_stride` is neither 8 nor 16.
    """
    if output_stride not in (8, 16):
        raise ValueError(f"`output_stride` must be 8 or 16. Received: {output_stride!r}")
    image = keras.Input((None, None, 3))
    x = ConvNorm(WIDTH, 7, NORM, strides=2, name="stem")(image)
    x = keras.layers.MaxPooling2D(3, 2, padding="same", data_format="channels_last")(x)
    stride, dilation = 4, 1
    for level, num_blocks in enumerate(BLOCKS[depth], start=2):
        width = WIDTH * 2 ** (level - 2)
        strides = 2 if level > 2 and stride < output_stride else 1
        if level > 2 and strides == 1:
            dilation *= 2
        stride *= strides
        for index in range(num_blocks):
            x = DilatedBlock(
                4 * width,
                width,
                NORM,
                strides=strides if index == 0 else 1,
                project=index == 0,
                dilation=dilation,
                name=f"res{level}_{index}",
            )(x)
    return keras.Model(image, x, name=f"dilated_{output_stride}")


def symmetric_decoder(depth: int) -> keras.Model:
    """A ResNet and its mirror image, as in a U-Net (Figure 4c).

    The decoder has the stages res4, res3 and res2 once more, in reverse order: each doubles the
    resolution (nearest), takes the encoder's features of that resolution beside its own (their sum,
    as in the FPN, after a 1x1 convolution to the same channels), and runs as many bottlenecks of
    the same width as the encoder's stage.

    Args:
        depth: 50, 101 or 152.

    Returns:
        Model of `[B, H, W, 3]`, H and W multiples of 32 -> `[B, H/4, W/4, 256]`.
    """
    image = keras.Input((None, None, 3))
    features = make_backbone(f"resnet{depth}", NORM, 0, True)(image)
    x = features["C5"]
    for level in (4, 3, 2):
        width = WIDTH * 2 ** (level - 2)
        x = ConvNorm(4 * width, 1, NORM, relu=False, name=f"decoder{level}_0")(x)
        x = ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2) + features[f"C{level}"]
        for index in range(BLOCKS[depth][level - 2]):
            x = BottleneckBlock(4 * width, width, NORM, name=f"decoder{level}_{index + 1}")(x)
    return keras.Model(image, x, name="symmetric_decoder")


def fpn_network(depth: int) -> keras.Model:
    """A ResNet with the feature pyramid of this package (Figure 4d).

    Args:
        depth: 50, 101 or 152.

    Returns:
        Model of `[B, H, W, 3]`, H and W multiples of 32 -> dict "P2".."P6".
    """
    image = keras.Input((None, None, 3))
    features = FPN(name="fpn")(make_backbone(f"resnet{depth}", NORM, 0, True)(image))
    return keras.Model(image, features, name="fpn_4")
