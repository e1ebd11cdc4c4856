"""The region proposal network's head (Ren et al., arXiv:1506.01497)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import MSRA, Conv2D, separable_conv
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class RPNHead(keras.layers.Layer):
    """A 3x3 convolution with ReLU, then objectness and box deltas; the same weights on each level.

    Args:
        num_anchors: int, anchors a cell.
        separable: bool, whether the 3x3 is a separable convolution.

    Call: dict "P2".."P6" -> two lists, one entry a level in that order: objectness logits
    `[B, h w num_anchors]` and deltas `[B, h w num_anchors, 4]` (dy, dx, dh, dw), in the order of
    `pyramid_anchors`.
    """

    def __init__(self, num_anchors: int = 3, separable: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_anchors = num_anchors
        self.separable = separable

    def build(self, input_shape: dict[str, Shape]) -> None:
        channels = input_shape["P2"][-1]
        full = full_dtype(self.compute_dtype)
        if self.separable:
            self.conv = separable_conv(
                channels, 3, MSRA, self.dtype_policy, "conv", activation="relu"
            )
        else:
            self.conv = self._conv(channels, 3, "conv", self.dtype_policy, activation="relu")
        self.objectness = self._conv(self.num_anchors, 1, "objectness", full)
        self.deltas = self._conv(4 * self.num_anchors, 1, "deltas", full)
        for layer in (self.conv, self.objectness, self.deltas):
            layer.build((None, None, None, channels))

    def _conv(
        self, filters: int, kernel_size: int, name: str, dtype: Any, **options: Any
    ) -> Conv2D:
        return Conv2D(
            filters,
            kernel_size,
            padding="same",
            # One for each layer: an initializer draws the same numbers whenever it is called.
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype=dtype,
            name=name,
            **options,
        )

    def call(self, inputs: Tensors) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for level in sorted(inputs):
            x = self.conv(inputs[level])
            batch = sides(x)[0]
            logits.append(ops.reshape(self.objectness(x), (batch, -1)))
            deltas.append(ops.reshape(self.deltas(x), (batch, -1, 4)))
        return logits, deltas

    def compute_output_spec(
        self, inputs: Tensors
    ) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        logits, deltas, dtype = [], [], full_dtype(self.compute_dtype)
        for level in sorted(inputs):
            batch, height, width, _ = inputs[level].shape
            known = height is not None and width is not None
            count = height * width * self.num_anchors if known else None
            logits.append(keras.KerasTensor((batch, count), dtype=dtype))
            deltas.append(keras.KerasTensor((batch, count, 4), dtype=dtype))
        return logits, deltas

    def get_config(self) -> dict[str, Any]:
        own = {"num_anchors": self.num_anchors, "separable": self.separable}
        return {**super().get_config(), **own}
