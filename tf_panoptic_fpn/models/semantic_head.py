"""The semantic segmentation branch of Panoptic FPN (arXiv:1901.02446, Figure 3)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import MSRA, Conv2D, ConvNorm
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.ops.resize import upsample_bilinear
from tf_panoptic_fpn.ops.sides import add_maps
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

DESIGNS = ("staged", "two_conv")
FUSIONS = ("sum", "concat")
UPSAMPLING = 4  # of the logits, to the size of the image that the network reads


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class SemanticHead(keras.layers.Layer):
    """P2..P5 -> semantic logits at stride 4.

    Each level goes through convolutions (3x3, GN, ReLU) and is brought to stride 4; the levels are
    fused, and a 1x1 convolution predicts the classes.

    Args:
        num_classes: int S.
        channels: int, width of the branch; a multiple of `norm_groups`.
        design: "staged", one convolution before each bilinear x2, as in Figure 3; or "two_conv",
            the early design of Table 1b: two convolutions on each level, then one bilinear
            upsampling to stride 4. The paper names the normalisation and the width of that entry
            nowhere; here they are those of Figure 3.
        fuse: "sum" or "concat" of the levels.
        norm_groups: int, groups of the norms.
        separable: bool, whether the 3x3 are separable convolutions.

    Call: dict "P2".."P5" -> float `[B, H/4, W/4, S]`.

    Raises:
        ValueError: if `design` or `fuse` is unknown.

    Reference: arXiv:1901.02446, Figure 3, and section 4.2 for the early design.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 128,
        design: str = "staged",
        fuse: str = "sum",
        norm_groups: int = 32,
        separable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if design not in DESIGNS:
            raise ValueError(f"`design` must be one of {DESIGNS}. Received: design={design!r}")
        if fuse not in FUSIONS:
            raise ValueError(f"`fuse` must be one of {FUSIONS}. Received: fuse={fuse!r}")
        self.num_classes = num_classes
        self.channels = channels
        self.design = design
        self.fuse = fuse
        self.norm_groups = norm_groups
        self.separable = separable
        self.branches = [
            [
                ConvNorm(
                    channels,
                    3,
                    "group_norm",
                    norm_groups=norm_groups,
                    separable=separable,
                    dtype=self.dtype_policy,
                    name=f"p{level}_{i}",
                )
                for i in range(2 if design == "two_conv" else max(level - 2, 1))
            ]
            for level in range(2, 6)
        ]
        self.predictor = Conv2D(
            num_classes,
            1,
            kernel_initializer=keras.initializers.VarianceScaling(**MSRA),
            dtype=full_dtype(self.compute_dtype),
            name="predictor",
        )

    def build(self, input_shape: dict[str, Shape]) -> None:
        for i, branch in enumerate(self.branches):
            shape = input_shape[f"P{i + 2}"]
            for conv in branch:
                conv.build(shape)
                shape = (*shape[:-1], self.channels)
        fused = self.channels * (len(self.branches) if self.fuse == "concat" else 1)
        self.predictor.build((*shape[:-1], fused))

    def call(self, inputs: Tensors) -> Tensor:
        levels = []
        for i, branch in enumerate(self.branches):
            x = inputs[f"P{i + 2}"]
            for conv in branch:
                x = conv(x)
                if i > 0 and self.design == "staged":
                    x = upsample_bilinear(x, 2)
            if i > 0 and self.design == "two_conv":
                x = upsample_bilinear(x, 2**i)
            levels.append(x)
        return self.predictor(
            ops.concatenate(levels, axis=-1) if self.fuse == "concat" else add_maps(*levels)
        )

    def compute_output_spec(self, inputs: Tensors) -> keras.KerasTensor:
        shape = (*inputs["P2"].shape[:-1], self.num_classes)
        return keras.KerasTensor(shape, dtype=full_dtype(self.compute_dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
            "design": self.design,
            "fuse": self.fuse,
            "norm_groups": self.norm_groups,
            "separable": self.separable,
        }
