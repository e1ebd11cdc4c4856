"""Any functional Keras network as a backbone: its maps are found by their shapes."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.backbone import IMAGENET_MEAN, LEVELS, STRIDES, Backbone, freeze
from tf_panoptic_fpn.backbones.conv_norm import Conv2D
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

SIZE = (96, 128)  # of the image whose maps are looked at; sides of no common shape
NORMS = ("frozen_affine", "sync_batch_norm")


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class NetworkBackbone(Backbone):
    """A functional Keras network from `[B, H, W, 3]`, of which C2..C5 are taken.

    Args:
        network: `keras.Model`, functional, that takes images of any size.
        maps: names of its operations, of which the last of each stride 4, 8, 16 and 32 gives
            C2..C5; None for all.
        norm: "frozen_affine", its batch norms keep their statistics, scales and shifts; or
            "sync_batch_norm", they are trained, over all replicas. Other norms are always trained.
        freeze_at: int 0-5; the stem (1) and the layers up to C2..C5 (2..5) are not trained.
        pixel_mean: RGB of 0 to 255, see `Backbone`.
        pixel_std: RGB.
        bgr: bool, whether the network reads BGR.

    Raises:
        ConfigError: if a stride is missing, or `norm` is another word.
    """

    def __init__(
        self,
        network: keras.Model,
        maps: Sequence[str] | None = None,
        norm: str = "frozen_affine",
        freeze_at: int = 2,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if norm not in NORMS:
            raise ConfigError(
                f"`norm` must be one of {NORMS} with {network.name}. Received: {norm!r}"
            )
        self.config: dict[str, Any] = {
            "norm": norm,
            "freeze_at": freeze_at,
            "pixel_mean": tuple(pixel_mean),
            "pixel_std": tuple(pixel_std),
            "bgr": bgr,
        }
        self.pixel_mean, self.pixel_std = tuple(pixel_mean), tuple(pixel_std)
        self.bgr = bgr
        with building(self.name, self.dtype_policy):
            network = _with_fast_groups(network)
        strides = _strides(network)
        outputs = _last_of_each_stride(network, strides, maps)
        self.network = keras.Model(network.inputs[0], outputs, name=network.name)
        # Names, as layers in a list would be those of this layer once more.
        self._depth_of = _depths(self.network, dict(zip(network.operations, strides, strict=True)))
        self.channels = [output.shape[-1] for output in outputs]
        for layer in self.network._flatten_layers(include_self=False):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = norm != "frozen_affine"
                layer.synchronized = layer.trainable and keras.backend.backend() == "tensorflow"
        freeze(self, freeze_at)

    def depths(self) -> list[list[keras.layers.Layer]]:
        depths: list[list[keras.layers.Layer]] = [[] for _ in range(5)]
        for name, depth in self._depth_of.items():
            depths[depth].append(self.network.get_layer(name))
        return depths

    def build(self, input_shape: Shape) -> None:
        pass  # the network is

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensors:
        if self.bgr:
            inputs = ops.flip(inputs, axis=-1)  # PyTorch has no negative steps
        return dict(zip(LEVELS, self.network(inputs, training=training), strict=True))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **self.config,
            "network": keras.saving.serialize_keras_object(self.network),
            "maps": [output._keras_history.operation.name for output in self.network.outputs],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NetworkBackbone":
        with building(config["name"], None):
            network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


class NamedBackbone(NetworkBackbone):
    """One that the arguments in `config` make anew, so that its files hold those alone."""

    def get_config(self) -> dict[str, Any]:
        return {**super(NetworkBackbone, self).get_config(), **self.config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NamedBackbone":
        return cls(**config)


@contextlib.contextmanager
def building(name: str, dtype: Any) -> Iterator[None]:
    """What networks are made in that know neither scopes, nor policies, nor layouts."""
    policy, layout = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(keras.dtype_policies.get(dtype) if dtype else policy)
    keras.config.set_image_data_format("channels_last")
    try:
        with keras.name_scope(name):
            yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(layout)


def _with_fast_groups(network: keras.Model) -> keras.Model:
    """The same network, its grouped convolutions of the kind that trains on every processor."""
    slow = [
        layer.name
        for layer in network.layers
        if type(layer) is keras.layers.Conv2D and layer.groups > 1
    ]
    if not slow:
        return network

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = Conv2D if layer.name in slow else layer.__class__
        return kind.from_config(layer.get_config())

    cloned = keras.models.clone_model(network, clone_function=clone)
    cloned.set_weights(network.get_weights())
    return cloned


def _strides(network: keras.Model) -> list[int | None]:
    """The stride of each operation's output; None of what is no map of a common stride."""
    operations = network.operations
    function = keras.Function(network.inputs[0], [op.output for op in operations])
    specs = function.compute_output_spec(keras.KerasTensor((1, *SIZE, 3)))
    strides = {tuple(side // stride for side in SIZE): stride for stride in (1, 2, *STRIDES)}
    shapes = [tuple(getattr(spec, "shape", ())) for spec in specs]
    return [strides.get(s[1:3]) if len(s) == 4 else None for s in shapes]


def _last_of_each_stride(
    network: keras.Model, strides: Sequence[int | None], maps: Sequence[str] | None
) -> list[Tensor]:
    last = {
        stride: op.output
        for op, stride in zip(network.operations, strides, strict=True)
        if maps is None or op.name in maps
    }
    missing = [stride for stride in STRIDES if stride not in last]
    if missing:
        raise ConfigError(
            f"{network.name} cannot be a backbone: it must have maps of strides {list(STRIDES)}, "
            f"and none has {', '.join(map(str, missing))}"
        )
    return [last[stride] for stride in STRIDES]


def _depths(network: keras.Model, strides: Mapping[Any, int | None]) -> dict[str, int]:
    """Each layer's name with the place of the coarsest stride up to it: 2 (the stem), 4, ..."""
    depths: dict[str, int] = {}
    coarsest = 1  # what knows no stride, such as a squeezed map, counts with what is before it
    for operation in network.operations:
        coarsest = max(coarsest, strides[operation] or 1)
        if isinstance(operation, keras.layers.Layer) and operation.weights:
            is_stem = coarsest < STRIDES[0] or not depths
            depths[operation.name] = 0 if is_stem else STRIDES.index(coarsest) + 1
    return depths
