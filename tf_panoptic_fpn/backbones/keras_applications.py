"""Networks of Keras Applications as backbones."""

import difflib
import os
from typing import Any

import keras

from tf_panoptic_fpn.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from tf_panoptic_fpn.backbones.drop_path import DropPath, drop_path_rates
from tf_panoptic_fpn.backbones.network import NamedBackbone, building
from tf_panoptic_fpn.errors import ConfigError, WeightsError
from tf_panoptic_fpn.messages import one_line

PREFIX = "keras_applications/"
CAFFE = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
TORCH = (IMAGENET_MEAN, IMAGENET_STD)
MINUS_1_TO_1 = ((127.5,) * 3, (127.5,) * 3)
# What the weights of each family were trained with, by what its names start with; the longest
# prefix counts. From the `preprocess_input` of its module or the layers that it begins with.
PREPROCESSING = {
    "ConvNeXt": TORCH,
    "DenseNet": TORCH,
    "EfficientNetB": TORCH,
    "EfficientNetV2": ((128.0,) * 3, (128.0,) * 3),
    "EfficientNetV2B": TORCH,
    "InceptionResNetV2": MINUS_1_TO_1,
    "MobileNet": MINUS_1_TO_1,
    "ResNet": CAFFE,
    "ResNet50V2": MINUS_1_TO_1,
    "ResNet101V2": MINUS_1_TO_1,
    "ResNet152V2": MINUS_1_TO_1,
    "VGG": CAFFE,
}
INSIDE = ("ConvNeXt", "EfficientNetV2", "MobileNetV3")  # preprocessing that can be left out
FIRST = {"EfficientNetB": "stem_conv_pad"}  # the layer behind preprocessing that cannot


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class KerasApplication(NamedBackbone):
    """A network of `keras.applications` without its classifier and its preprocessing.

    C2..C5 are the outputs of the last layers of stride 4, 8, 16 and 32.

    Args:
        architecture: a class name such as "ConvNeXtTiny".
        norm: see `NetworkBackbone`.
        freeze_at: see `NetworkBackbone`.
        drop_path: float, the rate of the last residual block; the first has 0. Of a ConvNeXt and
            the EfficientNets, which were made with it.
        weights: None, "imagenet" (downloaded by Keras), or the path of a file that Keras wrote for
            this network without its classifier. Not part of the layer's configuration.

    Raises:
        ConfigError: if the name is unknown, or the network has no place for a drop path.
        WeightsError: if the weights cannot be had.
    """

    def __init__(
        self,
        architecture: str,
        norm: str = "frozen_affine",
        freeze_at: int = 2,
        drop_path: float = 0.0,
        weights: str | None = None,
        **kwargs: Any,
    ) -> None:
        mean, std = preprocessing_of(architecture)
        with building(kwargs.get("name", "backbone"), kwargs.get("dtype")):
            network = _make_network(architecture, weights)
            network = _with_drop_path(network, architecture, drop_path)
        super().__init__(
            network,
            norm=norm,
            freeze_at=freeze_at,
            pixel_mean=mean,
            pixel_std=std,
            bgr=PREPROCESSING[_family(architecture)] is CAFFE,
            **kwargs,
        )
        self.config = {
            "architecture": architecture,
            "norm": norm,
            "freeze_at": freeze_at,
            "drop_path": drop_path,
        }


def application_names() -> list[str]:
    """The names of the networks that can be backbones."""
    known = [name for name in dir(keras.applications) if name[0].isupper()]
    return [name for name in known if _family(name)]


def preprocessing_of(architecture: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, RGB of 0 to 255, that a network's weights were trained with.

    Raises:
        ConfigError: if the name is unknown.
    """
    if architecture not in (names := application_names()):
        close = difflib.get_close_matches(architecture, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(
            f"`backbone`: Keras Applications has no network {architecture!r} that can be a "
            f"backbone{hint}"
        )
    return PREPROCESSING[_family(architecture)]


def _family(architecture: str) -> str:
    """The longest prefix in `PREPROCESSING`; "" of a name that has none."""
    fitting = [prefix for prefix in PREPROCESSING if architecture.startswith(prefix)]
    return max(fitting, key=len, default="")


def _make_network(architecture: str, weights: str | None) -> keras.Model:
    if weights not in (None, "imagenet") and not os.path.isfile(weights):
        raise WeightsError(f"{weights}: no such file (weights of {architecture})")
    options: dict[str, Any] = {"include_top": False, "input_shape": (None, None, 3)}
    if architecture.startswith(INSIDE):
        options["include_preprocessing"] = False
    try:
        network = getattr(keras.applications, architecture)(weights=weights, **options)
    except Exception as error:  # Keras raises a bare one where a download fails
        raise WeightsError(_unavailable(architecture, weights, error)) from None
    first = next((FIRST[p] for p in FIRST if architecture.startswith(p)), None)
    if first is None:
        return network
    return keras.Model(network.get_layer(first).input, network.output, name=network.name)


def _unavailable(architecture: str, weights: str | None, error: Exception) -> str:
    reason = one_line(error)
    if weights != "imagenet":
        return f"{weights}: does not fit {architecture} without its classifier: {reason}"
    url = next((word for word in reason.split() if word.startswith("http")), "")
    file = url.rstrip(":").rsplit("/", 1)[-1] or "its file of weights without classifier"
    folder = os.path.join(os.environ.get("KERAS_HOME", "~/.keras"), "models")
    return (
        f"the weights of {architecture} cannot be downloaded; put {file} into {folder}, or name "
        f"the file as `train.initial_weights`: {reason}"
    )


def _with_drop_path(network: keras.Model, architecture: str, rate: float) -> keras.Model:
    """The network with a `DropPath` at the end of each residual branch, in place of its own."""
    places = [layer.name for layer in network.layers if _is_place(layer)]
    if rate and not places:
        raise ConfigError(
            f"`drop_path` must be 0 with {architecture}, which has no place for it. Received: "
            f"{rate}"
        )
    if not rate and not architecture.startswith("EfficientNet"):
        return network
    rates = dict(zip(places, drop_path_rates(rate, len(places)), strict=True))

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in rates:
            return DropPath(rates[layer.name], name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    cloned = keras.models.clone_model(network, clone_function=clone)
    cloned.set_weights(network.get_weights())
    return cloned


def _is_place(layer: keras.layers.Layer) -> bool:
    """Whether a layer is where a residual branch ends: of ConvNeXt, and of EfficientNet."""
    if isinstance(layer, keras.layers.Dropout):
        return layer.noise_shape is not None
    return layer.name.endswith("_identity")
