"""The semantic segmentation branch of Panoptic FPN (arXiv:1901.02446, Figure 3)."""

import keras

from tf_panoptic_fpn.models.conv_norm import MSRA, ConvNorm
from tf_panoptic_fpn.ops.resize import upsample_bilinear


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class SemanticHead(keras.layers.Layer):
    """P2..P5 -> semantic logits at stride 4.

    Each level goes through (3x3 conv, GN, ReLU, bilinear x2) until it is at stride 4; the levels
    are summed, and a 1x1 convolution predicts the classes.

    Args:
        num_classes: int S, `other` and the stuff classes.
        channels: int, width of the branch; a multiple of 32.

    Call: dict "P2".."P5" -> float `[B, H/4, W/4, S]`.
    """

    def __init__(self, num_classes, channels=128, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.channels = channels
        self.branches = [
            [
                ConvNorm(channels, 3, "group_norm", name=f"p{level}_{i}")
                for i in range(max(level - 2, 1))
            ]
            for level in range(2, 6)
        ]
        self.predictor = keras.layers.Conv2D(
            num_classes,
            1,
            kernel_initializer=keras.initializers.VarianceScaling(**MSRA),
            name="predictor",
        )

    def build(self, input_shape):
        for i, branch in enumerate(self.branches):
            shape = input_shape[f"P{i + 2}"]
            for conv in branch:
                conv.build(shape)
                shape = (*shape[:-1], self.channels)
        self.predictor.build(shape)

    def call(self, inputs):
        total = 0.0
        for i, branch in enumerate(self.branches):
            x = inputs[f"P{i + 2}"]
            for conv in branch:
                x = conv(x)
                if i > 0:
                    x = upsample_bilinear(x, 2)
            total = total + x
        return self.predictor(total)

    def compute_output_shape(self, input_shape):
        return (*input_shape["P2"][:-1], self.num_classes)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
        }
