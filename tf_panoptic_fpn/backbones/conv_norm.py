"""A convolution with its normalisation, the brick of the backbone and the semantic branch."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_panoptic_fpn.ops.group_norm import group_norm
from tf_panoptic_fpn.ops.grouped_conv import grouped_conv
from tf_panoptic_fpn.ops.same_conv import has_slow_gradient, same_conv
from tf_panoptic_fpn.schema import Shape, Tensor

NORMS = ("frozen_affine", "group_norm", "sync_batch_norm")
BATCH_STATISTICS = ("moving_mean", "moving_variance")
MSRA = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ChannelAffine(keras.layers.Layer):
    """Frozen batch normalisation, folded: `y = x * scale + shift` for each channel, not trained.

    A batch norm (gamma, beta, mean, variance) folds into `scale = gamma / sqrt(variance + epsilon)`
    and `shift = beta - mean * scale`; the weight importers do so with the source's epsilon.
    """

    def build(self, input_shape: Shape) -> None:
        channels = (input_shape[-1],)
        self.scale = self.add_weight(
            shape=channels, initializer="ones", trainable=False, name="scale"
        )
        self.shift = self.add_weight(
            shape=channels, initializer="zeros", trainable=False, name="shift"
        )

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale + self.shift

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class GroupNorm(keras.layers.GroupNormalization):
    """`GroupNormalization` in a third of the time on a CPU, see `ops.group_norm`."""

    def call(self, inputs: Tensor) -> Tensor:
        return group_norm(inputs, self.gamma, self.beta, self.groups, self.epsilon)


def make_norm(norm: str, name: str, dtype: Any = None, groups: int = 32) -> keras.layers.Layer:
    """Returns the normalisation layer for `norm`.

    Args:
        norm: "frozen_affine"; "group_norm"; or "sync_batch_norm", whose statistics are those of the
            global batch under `tf.distribute`.
        name: str.
        dtype: dtype policy; None for the global one.
        groups: int, of a group norm.

    Raises:
        ValueError: if `norm` is another name.
    """
    # Keras' epsilon is 1e-3; PyTorch, and so every public checkpoint, has 1e-5.
    if norm == "frozen_affine":
        return ChannelAffine(dtype=dtype, name=name)
    if norm == "group_norm":
        return GroupNorm(groups=groups, epsilon=1e-5, dtype=dtype, name=name)
    if norm == "sync_batch_norm":
        # Keras synchronises on TensorFlow alone. A momentum of .9 here is PyTorch's .1.
        synchronized = keras.backend.backend() == "tensorflow"
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=synchronized, dtype=dtype, name=name
        )
    raise ValueError(f"`norm` must be one of {NORMS}. Received: norm={norm!r}")


def batch_statistics(model: keras.Model) -> list[keras.Variable]:
    """Returns the moving means and variances of a model's batch norms."""
    return [v for v in model.non_trainable_variables if v.name in BATCH_STATISTICS]


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, channels last, with fewer and faster kernels on TensorFlow.

    With groups it is fast and trains on a CPU too, see `ops.grouped_conv`; the bias and its
    gradient are a kernel each.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"data_format": "channels_last", **kwargs})

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = self.convolve(inputs, self.kernel, training)
        return self.activation(add_channels(x, self.bias, self.groups) if self.use_bias else x)

    def convolve(self, inputs: Tensor, kernel: Tensor, training: bool | None) -> Tensor:
        """The convolution alone, with any kernel; in training with a gradient that is fast too."""
        plain = self.padding == "same" and {self.groups, *self.strides, *self.dilation_rate} == {1}
        is_3x3 = plain and self.kernel_size == (3, 3)
        if training and is_3x3 and has_slow_gradient(inputs.dtype):
            return same_conv(inputs, kernel)
        return self.convolution_op(inputs, kernel)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if self.groups == 1 or keras.backend.backend() != "tensorflow":
            return super().convolution_op(inputs, kernel)
        return grouped_conv(inputs, kernel, self.strides, self.padding)


def add_channels(x: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Adds a bias `[C]` to what was convolved in groups."""
    # Grappler would make one kernel of a `BiasAdd` and its convolution, which a CPU lacks for
    # groups.
    return add_bias(x, bias) if groups == 1 else x + bias


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ConvNorm(keras.layers.Layer):
    """Convolution without bias, normalisation and, if asked for, ReLU.

    Padding is symmetric, `kernel_size // 2` on each side, as in PyTorch; Keras' "same" pads a
    stride of 2 on the right and bottom only.

    Args:
        filters: int, output channels.
        kernel_size: int, odd.
        norm: see `make_norm`.
        strides: int.
        groups: int, groups of the convolution.
        relu: bool.
        norm_groups: int, groups of a group norm.
        initializer: arguments of the kernel's `VarianceScaling`.
        separable: bool, a depthwise convolution and a 1x1 in place of one; of stride 1.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        norm: str,
        strides: int = 1,
        groups: int = 1,
        relu: bool = True,
        norm_groups: int = 32,
        initializer: Mapping[str, Any] = MSRA,
        separable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.separable = separable
        self.filters = filters
        self.kernel_size = kernel_size
        self.norm_name = norm
        self.strides = strides
        self.groups = groups
        self.relu = relu
        self.norm_groups = norm_groups
        self.initializer = dict(initializer)
        self.pads = 0
        self.is_folded = False  # set while the weights are those of `folded_norm`
        self.conv = self._make_conv()
        self.norm = make_norm(norm, "norm", self.dtype_policy, norm_groups)

    def _make_conv(self) -> keras.layers.Layer:
        if self.separable:
            return separable_conv(
                self.filters,
                self.kernel_size,
                self.initializer,
                self.dtype_policy,
                "conv",
                use_bias=False,
            )
        strided = self.strides > 1
        self.pads = self.kernel_size // 2 if strided else 0
        return Conv2D(
            self.filters,
            self.kernel_size,
            strides=1 if self.kernel_size == 1 else self.strides,
            groups=self.groups,
            padding="valid" if strided else "same",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(**self.initializer),
            dtype=self.dtype_policy,
            name="conv",
        )

    def build(self, input_shape: Shape) -> None:
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.filters))

    @property
    def last_kernel(self) -> keras.Variable:
        """The kernel whose output channels the norm scales."""
        return self.conv.pointwise_kernel if self.separable else self.conv.kernel

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        if self.kernel_size == 1 and self.strides > 1:
            # Not left to the convolution: with 8 channels or fewer, the gradient of TensorFlow's
            # oneDNN kernel writes past its memory.
            x = x[:, :: self.strides, :: self.strides]
        if self.pads:
            x = ops.pad(x, ((0, 0), (self.pads, self.pads), (self.pads, self.pads), (0, 0)))
        if self.is_folded:
            x = add_channels(self.conv(x), shift_of(self.norm), self.groups)
        elif isinstance(self.norm, ChannelAffine) and isinstance(self.conv, Conv2D):
            # In the kernel: so no map is scaled, nor its gradient.
            x = self.conv.convolve(x, self.conv.kernel * self.norm.scale, training)
            x = add_channels(x, self.norm.shift, self.groups)
        else:
            x = self.norm(self.conv(x))
        return ops.relu(x) if self.relu else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        return (batch, _strided(height, self.strides), _strided(width, self.strides), self.filters)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            filters=self.filters,
            kernel_size=self.kernel_size,
            norm=self.norm_name,
            strides=self.strides,
            groups=self.groups,
            relu=self.relu,
            norm_groups=self.norm_groups,
            initializer=self.initializer,
            separable=self.separable,
        )
        return config


def folded_norm(norm: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray] | None:
    """The scale and shift, float32 `[C]`, of a norm whose statistics are fixed at test, or None.

    A convolution whose kernel is multiplied by the scale needs the shift alone.
    """
    if isinstance(norm, ChannelAffine):
        scale, shift = norm.scale.numpy(), norm.shift.numpy()
    elif isinstance(norm, keras.layers.BatchNormalization):
        beta, mean, variance = (
            v.numpy().astype(np.float64)
            for v in (norm.beta, norm.moving_mean, norm.moving_variance)
        )
        gamma = 1.0 if norm.gamma is None else norm.gamma.numpy().astype(np.float64)
        scale = gamma / np.sqrt(variance + norm.epsilon)
        shift = beta - mean * scale
    else:
        return None
    return scale.astype(np.float32), shift.astype(np.float32)


def shift_of(norm: keras.layers.Layer) -> keras.Variable:
    """The weight of a norm that `folded_norm` knows which is added to each channel."""
    return norm.shift if isinstance(norm, ChannelAffine) else norm.beta


def separable_conv(
    filters: int,
    kernel_size: int,
    initializer: Mapping[str, Any],
    dtype: Any,
    name: str,
    **options: Any,
) -> keras.layers.SeparableConv2D:
    """Returns a depthwise convolution and a 1x1, each with the initializer, padded to the size.

    Reference: MobileNets, arXiv:1704.04861, section 3.1.
    """
    return keras.layers.SeparableConv2D(
        filters,
        kernel_size,
        padding="same",
        data_format="channels_last",
        # A channel's cells are its fan-in, which Keras does not see in the kernel's shape.
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / kernel_size),
        pointwise_initializer=keras.initializers.VarianceScaling(**initializer),
        dtype=dtype,
        name=name,
        **options,
    )


def conv_relu(
    filters: int, norm: str, norm_groups: int, dtype: Any, name: str, separable: bool = False
) -> keras.layers.Layer:
    """Returns a 3x3 convolution of a head, with ReLU: with bias, or a norm that is not "none"."""
    if norm != "none":
        options = {"norm_groups": norm_groups, "separable": separable, "dtype": dtype}
        return ConvNorm(filters, 3, norm, **options, name=name)
    if separable:
        return separable_conv(filters, 3, MSRA, dtype, name, activation="relu")
    return Conv2D(
        filters,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=keras.initializers.VarianceScaling(**MSRA),
        dtype=dtype,
        name=name,
    )


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Adds `[C]` to `[..., C]`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias


def _strided(size: int | None, strides: int) -> int | None:
    return None if size is None else (size - 1) // strides + 1
