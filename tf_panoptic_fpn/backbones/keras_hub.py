"""Backbones of KerasHub: those with a feature pyramid, and plain vision transformers."""

import difflib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tf_panoptic_fpn.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from tf_panoptic_fpn.backbones.hub_network import hub_network, import_keras_hub
from tf_panoptic_fpn.backbones.mix_transformer import mix_network
from tf_panoptic_fpn.backbones.network import NamedBackbone, building
from tf_panoptic_fpn.backbones.swin_transformer import swin_network, take_swin_weights
from tf_panoptic_fpn.backbones.vision_transformer import TRANSFORMERS, VisionTransformer
from tf_panoptic_fpn.errors import ConfigError, WeightsError
from tf_panoptic_fpn.messages import one_line

PREFIX = "keras_hub/"
DROP_PATH = {"EfficientNetBackbone": "dropout"}  # the argument of what has one
SWIN = "SwinTransformerBackbone"
OF_MAPS = {"MiTBackbone": mix_network, SWIN: swin_network}
CONVERTERS = ("image_converter.json", "preprocessor.json")  # of a preset's folder
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)


def _dinov2(dim: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    return "DINOV2Backbone", {
        "patch_size": 14,
        "num_layers": layers,
        "hidden_dim": dim,
        "num_heads": heads,
        "intermediate_dim": 4 * dim,
    }


def _dinov3(dim: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    _, arguments = _dinov2(dim, layers, heads)
    return "DINOV3Backbone", {**arguments, "patch_size": 16, "use_key_bias": False}


def _resnet(block: str, *blocks: int) -> tuple[str, dict[str, Any]]:
    return "ResNetBackbone", {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": list(blocks),
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": block,
    }


def _densenet(*repeats: int) -> tuple[str, dict[str, Any]]:
    return "DenseNetBackbone", {"stackwise_num_repeats": list(repeats), "growth_rate": 32}


def _mit(width: int, *depths: int) -> tuple[str, dict[str, Any]]:
    return "MiTBackbone", {
        "hidden_dims": [width, 2 * width, 5 * width, 8 * width],
        "num_layers": 4,
        "layerwise_depths": list(depths),
        "layerwise_num_heads": [1, 2, 5, 8],
        "layerwise_sr_ratios": [8, 4, 2, 1],
        "layerwise_patch_sizes": [7, 3, 3, 3],
        "layerwise_strides": [4, 2, 2, 2],
    }


def _swin(dim: int, heads: int, depth: int, window: int = 7) -> tuple[str, dict[str, Any]]:
    return SWIN, {
        "embed_dim": dim,
        "depths": [2, 2, depth, 2],
        "num_heads": [heads, 2 * heads, 4 * heads, 8 * heads],
        "window_size": window,
    }


# Presets whose networks are made without their files, which the weights alone take.
ARCHITECTURES = {
    "dinov2_small": _dinov2(384, 12, 6),
    "dinov2_base": _dinov2(768, 12, 12),
    "dinov2_large": _dinov2(1024, 24, 16),
    "dinov3_vit_small_lvd1689m": _dinov3(384, 12, 6),
    "dinov3_vit_base_lvd1689m": _dinov3(768, 12, 12),
    "dinov3_vit_large_lvd1689m": _dinov3(1024, 24, 16),
    "resnet_18_imagenet": _resnet("basic_block", 2, 2, 2, 2),
    "resnet_50_imagenet": _resnet("bottleneck_block", 3, 4, 6, 3),
    "resnet_101_imagenet": _resnet("bottleneck_block", 3, 4, 23, 3),
    "mit_b0_ade20k_512": _mit(32, 2, 2, 2, 2),
    "mit_b1_ade20k_512": _mit(64, 2, 2, 2, 2),
    "mit_b2_ade20k_512": _mit(64, 3, 4, 6, 3),
    "swin_tiny_patch4_window7_224": _swin(96, 3, 6),
    "swin_small_patch4_window7_224": _swin(96, 3, 18),
    "swin_base_patch4_window7_224": _swin(128, 4, 18),
    "densenet_121_imagenet": _densenet(6, 12, 24, 16),
    "densenet_169_imagenet": _densenet(6, 12, 32, 32),
    "densenet_201_imagenet": _densenet(6, 12, 48, 32),
}


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class KerasHubBackbone(NamedBackbone):
    """A network of KerasHub with a pyramid, of whose maps those of stride 4 to 32 are taken.

    MiT and Swin, whose own graphs are of one size of images, are made anew of their parts.

    Args:
        architecture: its class in `keras_hub.models`, such as "ResNetBackbone".
        arguments: those of the class.
        pixel_mean: see `NetworkBackbone`.
        pixel_std: see `NetworkBackbone`.
        norm: see `NetworkBackbone`.
        freeze_at: see `NetworkBackbone`.
        drop_path: float, of an EfficientNet, a MiT or a Swin the rate of the last residual block.
        source: an instance whose weights are taken; not part of the layer's configuration.

    Raises:
        ConfigError: if KerasHub is not installed, the class has no pyramid, or no place for a drop
            path.
    """

    def __init__(
        self,
        architecture: str,
        arguments: Mapping[str, Any],
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        norm: str = "frozen_affine",
        freeze_at: int = 2,
        drop_path: float = 0.0,
        source: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = dict(arguments)
        if architecture in DROP_PATH:
            arguments[DROP_PATH[architecture]] = drop_path
        elif drop_path and architecture not in OF_MAPS:
            raise ConfigError(
                f"`drop_path` must be 0 with {architecture} of KerasHub. Received: {drop_path}"
            )
        with building(kwargs.get("name", "backbone"), kwargs.get("dtype")):
            if architecture in OF_MAPS:
                network = OF_MAPS[architecture](arguments, drop_path)
                maps = network.outputs
            else:
                network = hub_network(architecture, arguments)
                maps = list(getattr(network, "pyramid_outputs", {}).values())
        if not maps:
            raise ConfigError(
                f"{architecture} of KerasHub cannot be a backbone: it has no feature pyramid"
            )
        if source is not None and architecture == SWIN:
            take_swin_weights(network, source)
        elif source is not None:
            network.set_weights(source.get_weights())
        super().__init__(
            network,
            [output._keras_history.operation.name for output in maps],
            norm,
            freeze_at,
            pixel_mean,
            pixel_std,
            **kwargs,
        )
        self.config = {
            "architecture": architecture,
            "arguments": arguments,
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
            "norm": norm,
            "freeze_at": freeze_at,
            "drop_path": drop_path,
        }


def make_keras_hub(
    name: str,
    norm: str,
    freeze_at: int,
    drop_path: float = 0.0,
    dtype: Any = None,
    weights: bool = False,
) -> Backbone:
    """Returns the backbone of a preset.

    Args:
        name: the folder of a preset, or the name of a published one.
        norm, freeze_at, drop_path: see `KerasHubBackbone` and `VisionTransformer`.
        dtype: policy of the layers.
        weights: bool, whether it has the preset's weights.

    Raises:
        ConfigError: if the name is unknown, or the network cannot be a backbone.
        WeightsError: if the files cannot be had.
    """
    source, pixels = None, IMAGENET
    if weights or name not in ARCHITECTURES:
        source = _from_preset(name, weights)
        architecture, arguments = _structure(source)
        pixels = _preset_pixels(name) or IMAGENET
    else:
        architecture, arguments = ARCHITECTURES[name]
    kind = VisionTransformer if architecture in TRANSFORMERS else KerasHubBackbone
    return kind(
        architecture,
        arguments,
        pixel_mean=pixels[0],
        pixel_std=pixels[1],
        norm=norm,
        freeze_at=freeze_at,
        drop_path=drop_path,
        source=source if weights else None,
        dtype=dtype,
        name="backbone",
    )


def from_instance(network: keras.Model, norm: str, freeze_at: int, drop_path: float) -> Backbone:
    """Returns a backbone with the structure and the weights of one of KerasHub."""
    architecture, arguments = _structure(network)
    kind = VisionTransformer if architecture in TRANSFORMERS else KerasHubBackbone
    return kind(
        architecture,
        arguments,
        norm=norm,
        freeze_at=freeze_at,
        drop_path=drop_path,
        source=network,
        dtype=network.dtype_policy,
        name="backbone",
    )


def _structure(network: keras.Model) -> tuple[str, dict[str, Any]]:
    """The class of a network of KerasHub, and its arguments."""
    arguments = network.get_config()
    for key in ("name", "trainable", "dtype"):
        arguments.pop(key, None)
    name = type(network).__name__
    if name == "EfficientNetBackbone":  # its configuration lacks this
        arguments["num_features"] = network.output.shape[-1]
    return name, arguments


def _from_preset(name: str, weights: bool) -> keras.Model:
    hub = import_keras_hub()
    folder = pathlib.Path(os.path.expanduser(name))
    presets = {
        **hub.models.FeaturePyramidBackbone.presets,
        **hub.models.SwinTransformerBackbone.presets,
    }
    if not (folder / "config.json").is_file():
        if folder.is_dir() or len(folder.parts) > 1:
            raise ConfigError(
                f"`backbone`: {folder} must be the folder of a preset of KerasHub, with its "
                "config.json and model.weights.h5"
            )
        _check_known(name, presets)
    try:
        return hub.models.Backbone.from_preset(
            str(folder) if folder.is_dir() else name, load_weights=weights
        )
    except Exception as error:  # whatever the libraries of its hubs raise
        known = presets.get(name, {})
        where = known.get("kaggle_handle", "").removeprefix("kaggle://")
        hint = ""
        if where:
            hint = (
                f"; download its folder (config.json, model.weights.h5) from kaggle.com/models/"
                f"{where} and name that: `backbone: {PREFIX}FOLDER`"
            )
        raise WeightsError(
            f"the preset {name} of KerasHub cannot be had{hint}: {one_line(error)[:200]}"
        ) from None


def _check_known(name: str, presets: Mapping[str, Any]) -> None:
    names = list(dict.fromkeys([*ARCHITECTURES, *presets]))
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(
            f"`backbone`: KerasHub has no preset {name!r} with a feature pyramid, and no folder "
            f"has that name{hint}"
        )


def _preset_pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of a preset's folder: `x * scale + offset` is `(x - mean) / deviation`."""
    for file in CONVERTERS:
        path = pathlib.Path(os.path.expanduser(name), file)
        if not path.is_file():
            continue
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        config = config.get("image_converter", {"config": config})["config"]
        scale, offset = (config.get(key) for key in ("scale", "offset"))
        if scale is None:
            continue
        scales = scale if isinstance(scale, list) else [scale] * 3
        offsets = offset if isinstance(offset, list) else [offset or 0.0] * 3
        pairs = list(zip(scales, offsets, strict=True))
        return tuple(-b / a for a, b in pairs), tuple(1 / a for a, _ in pairs)
    return None
