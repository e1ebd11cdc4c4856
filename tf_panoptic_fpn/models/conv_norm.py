"""A convolution with its normalisation, the brick of the backbone and the semantic branch."""

import keras
from keras import ops

MSRA = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ChannelAffine(keras.layers.Layer):
    """Frozen batch normalisation, folded: `y = x * scale + shift` for each channel, not trained.

    A batch norm (gamma, beta, mean, variance) folds into `scale = gamma / sqrt(variance + epsilon)`
    and `shift = beta - mean * scale`; the weight importers do so with the source's epsilon.
    """

    def build(self, input_shape):
        channels = (input_shape[-1],)
        self.scale = self.add_weight(
            shape=channels, initializer="ones", trainable=False, name="scale"
        )
        self.shift = self.add_weight(
            shape=channels, initializer="zeros", trainable=False, name="shift"
        )

    def call(self, inputs):
        return inputs * self.scale + self.shift

    def compute_output_shape(self, input_shape):
        return input_shape


def make_norm(norm, name):
    """Returns the normalisation layer for `norm`: "frozen_affine" or "group_norm" (32 groups).

    Raises:
        ValueError: if `norm` is another name.
    """
    if norm == "frozen_affine":
        return ChannelAffine(name=name)
    if norm == "group_norm":
        # Keras defaults to 1e-3; PyTorch, and so every public checkpoint, has 1e-5.
        return keras.layers.GroupNormalization(groups=32, epsilon=1e-5, name=name)
    raise ValueError(f"`norm` must be 'frozen_affine' or 'group_norm'. Received: norm={norm!r}")


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class ConvNorm(keras.layers.Layer):
    """Convolution without bias, normalisation and, if asked for, ReLU.

    Padding is symmetric, `kernel_size // 2` on each side, as in PyTorch; Keras' "same" pads a
    stride of 2 on the right and bottom only.

    Args:
        filters: int, output channels.
        kernel_size: int, odd.
        norm: "frozen_affine" or "group_norm".
        strides: int.
        groups: int, groups of the convolution.
        relu: bool.
    """

    def __init__(self, filters, kernel_size, norm, strides=1, groups=1, relu=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.norm_name = norm
        self.strides = strides
        self.groups = groups
        self.relu = relu
        self.pads = kernel_size // 2 if strides > 1 else 0
        self.conv = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            groups=groups,
            padding="valid" if strides > 1 else "same",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(**MSRA),
            dtype=self.dtype_policy,
            name="conv",
        )
        self.norm = make_norm(norm, "norm")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.filters))

    def call(self, inputs):
        x = inputs
        if self.pads:
            x = ops.pad(x, ((0, 0), (self.pads, self.pads), (self.pads, self.pads), (0, 0)))
        x = self.norm(self.conv(x))
        return ops.relu(x) if self.relu else x

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, _strided(height, self.strides), _strided(width, self.strides), self.filters)

    def get_config(self):
        config = super().get_config()
        config.update(
            filters=self.filters,
            kernel_size=self.kernel_size,
            norm=self.norm_name,
            strides=self.strides,
            groups=self.groups,
            relu=self.relu,
        )
        return config


def _strided(size, strides):
    return None if size is None else (size - 1) // strides + 1
