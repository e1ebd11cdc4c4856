"""The mask head of Mask R-CNN (He et al., arXiv:1703.06870)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import MSRA, Conv2D, conv_relu
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.ops.roi_align import roi_align
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

MASK_SIZE = 28


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ClassConv2D(Conv2D):
    """A 1x1 convolution that computes, of each map, the filter of one class alone.

    Call: (float `[N, 28, 28, C]`, classes int32 `[N]`) -> `[N, 28, 28]`; without classes all
    filters, `[N, 28, 28, K]`.
    """

    def call(self, inputs: Tensor, classes: Tensor | None = None) -> Tensor:
        if classes is None:
            return super().call(inputs)
        # By a product: the gradient of rows taken would be of rows too, not of the kernel.
        chosen = ops.one_hot(classes, self.filters, dtype=self.compute_dtype)
        filters = ops.matmul(chosen, ops.transpose(ops.reshape(self.kernel, (-1, self.filters))))
        bias = ops.matmul(chosen, ops.reshape(self.bias, (-1, 1)))
        cells = ops.reshape(inputs, (-1, MASK_SIZE**2, inputs.shape[-1]))
        x = ops.matmul(cells, filters[:, :, None]) + bias[:, :, None]
        return ops.reshape(x, (-1, MASK_SIZE, MASK_SIZE))


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class MaskHead(keras.layers.Layer):
    """RoIAlign 14x14, some 3x3 convolutions, a 2x2 deconvolution and one mask a class.

    Args:
        num_classes: int K, thing classes.
        channels: int, width of the head.
        sampling_ratio: int, RoIAlign samples a bin and axis; 0 adapts to the roi's size.
        convolutions: int, 3x3 convolutions.
        norm: "none", or "group_norm" after each of them, which then has no bias.
        norm_groups: int, groups of the norm.
        separable: bool, whether the 3x3 are separable convolutions.

    Call: (features "P2".."P5", rois float32 `[B, R, 4]`, classes int32 `[B, R]`, num_rois int32
    `[B]`, the rest is padding) -> mask logits `[B, R, 28, 28]` of each roi's class. The logits of
    padding mean nothing.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 256,
        sampling_ratio: int = 0,
        convolutions: int = 4,
        norm: str = "none",
        norm_groups: int = 32,
        separable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # the rois stay as they are
        self.num_classes = num_classes
        self.channels = channels
        self.sampling_ratio = sampling_ratio
        self.convolutions = convolutions
        self.norm = norm
        self.norm_groups = norm_groups
        self.separable = separable
        self.convs = [
            conv_relu(channels, norm, norm_groups, self.dtype_policy, f"conv{i + 1}", separable)
            for i in range(convolutions)
        ]
        self.deconv = keras.layers.Conv2DTranspose(
            channels,
            2,
            strides=2,
            kernel_initializer=keras.initializers.VarianceScaling(**MSRA),
            activation="relu",
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="deconv",
        )
        self.predictor = ClassConv2D(
            num_classes,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            dtype=full_dtype(self.compute_dtype),
            name="predictor",
        )

    def build(
        self,
        features_shape: dict[str, Shape],
        rois_shape: Shape | None = None,
        classes_shape: Shape | None = None,
        num_rois_shape: Shape | None = None,
    ) -> None:
        channels = features_shape["P2"][-1]
        for conv in self.convs:
            conv.build((None, 14, 14, channels))
            channels = self.channels
        self.deconv.build((None, 14, 14, channels))
        self.predictor.build((None, MASK_SIZE, MASK_SIZE, channels))

    def call(
        self,
        features: Tensors,
        rois: Tensor,
        classes: Tensor,
        num_rois: Tensor,
        training: bool | None = None,  # for the convolutions
    ) -> Tensor:
        count = sides(rois)[1]
        if use_tensorflow_kernels():  # shapes may depend on data: leave most of the padding out
            used = ops.maximum(ops.max(num_rois), 1)
            logits = self._mask_logits(features, rois[:, :used], classes[:, :used])
            return ops.pad(logits, ((0, 0), (0, count - used), (0, 0), (0, 0)))
        return self._mask_logits(features, rois, classes)

    def _mask_logits(self, features: Tensors, rois: Tensor, classes: Tensor) -> Tensor:
        batch, count = sides(rois)[:2]
        x = roi_align(features, rois, 14, self.sampling_ratio)
        x = ops.reshape(x, (batch * count, 14, 14, features["P2"].shape[-1]))
        for conv in self.convs:
            x = conv(x)
        x = self.predictor(self.deconv(x), ops.reshape(ops.maximum(classes, 0), (-1,)))
        return ops.reshape(x, (batch, count, MASK_SIZE, MASK_SIZE))

    def compute_output_spec(
        self,
        features: Tensors,
        rois: Tensor,
        classes: Tensor,
        num_rois: Tensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        shape = (*rois.shape[:2], MASK_SIZE, MASK_SIZE)
        return keras.KerasTensor(shape, dtype=full_dtype(self.compute_dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
            "sampling_ratio": self.sampling_ratio,
            "convolutions": self.convolutions,
            "norm": self.norm,
            "norm_groups": self.norm_groups,
            "separable": self.separable,
        }
