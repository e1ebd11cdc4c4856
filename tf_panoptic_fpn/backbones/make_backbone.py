"""From a name, or a network of the caller's own, to a backbone."""

from collections.abc import Mapping
from typing import Any

import keras

from tf_panoptic_fpn.backbones import keras_applications, keras_hub, resnet
from tf_panoptic_fpn.backbones.backbone import Backbone, check_maps
from tf_panoptic_fpn.backbones.keras_applications import KerasApplication
from tf_panoptic_fpn.backbones.network import SIZE, NetworkBackbone, building
from tf_panoptic_fpn.errors import ConfigError

OF_RESNETS = ("stride_in_1x1", "norm_groups", "deformable_stages")
OF_RESNETS += ("deformable_groups", "deformable_modulated")
OF_ALL = ("norm", "freeze_at")


def make_backbone(
    backbone: str | keras.layers.Layer, config: Mapping[str, Any], dtype: Any = None
) -> keras.layers.Layer:
    """Returns the backbone of a `PanopticFPN`.

    Args:
        backbone: a name, of a ResNet, "keras_applications/NAME" or "keras_hub/PRESET_OR_FOLDER"; a
            layer or a model of the caller's own that gives C2..C5, which is returned as it is; or a
            functional `keras.Model` from images to anything, or a `FeaturePyramidBackbone` of
            KerasHub, whose maps are found, and whose weights are taken.
        config: the arguments of the `PanopticFPN`.
        dtype: policy of the layers of a backbone given by name.

    Raises:
        ConfigError: if the name is unknown, or a stride is missing.
        ValueError: if it is the name of no ResNet.
        WeightsError: if files that a name stands for cannot be had.
    """
    if not isinstance(backbone, str):
        return _own_backbone(backbone, config)
    options = {name: config[name] for name in OF_ALL}
    drop_path = config["drop_path"]
    if backbone.startswith(keras_applications.PREFIX):
        name = backbone.removeprefix(keras_applications.PREFIX)
        return KerasApplication(name, drop_path=drop_path, dtype=dtype, name="backbone", **options)
    if backbone.startswith(keras_hub.PREFIX):
        name = backbone.removeprefix(keras_hub.PREFIX)
        return keras_hub.make_keras_hub(name, drop_path=drop_path, dtype=dtype, **options)
    if drop_path:
        raise ConfigError(f"`drop_path` must be 0 with {backbone}. Received: {drop_path}")
    options |= {name: config[name] for name in OF_RESNETS}
    return resnet.make_backbone(backbone, dtype=dtype, **options)


def pretrained_backbone(backbone: str, weights: str = "") -> Backbone:
    """Returns a backbone of Keras Applications or KerasHub with weights.

    Args:
        backbone: its name, as for `make_backbone`.
        weights: a file or the folder of a preset; empty for what Keras publishes, downloaded.

    Raises:
        ConfigError: if it is the name of neither.
        WeightsError: if the weights cannot be had.
    """
    if backbone.startswith(keras_applications.PREFIX):
        name = backbone.removeprefix(keras_applications.PREFIX)
        return KerasApplication(name, weights=weights or "imagenet", name="backbone")
    if backbone.startswith(keras_hub.PREFIX):
        name = weights or backbone.removeprefix(keras_hub.PREFIX)
        return keras_hub.make_keras_hub(name, "frozen_affine", 0, weights=True)
    raise ConfigError(
        "`train.initial_weights: pretrained` is for backbones of Keras Applications and KerasHub; "
        f"with {backbone} it must name the weights"
    )


def _own_backbone(backbone: keras.layers.Layer, config: Mapping[str, Any]) -> keras.layers.Layer:
    if isinstance(backbone, Backbone):
        return backbone
    if hasattr(backbone, "pyramid_outputs") or type(backbone).__name__ == keras_hub.SWIN:
        options = [config[name] for name in (*OF_ALL, "drop_path")]
        return keras_hub.from_instance(backbone, *options)
    maps = backbone(keras.KerasTensor((1, *SIZE, 3), dtype=backbone.compute_dtype))
    if isinstance(backbone, keras.models.Model) and not isinstance(maps, Mapping):
        options = {name: config[name] for name in OF_ALL}
        with building("backbone", backbone.dtype_policy):  # whose name its weights are known by
            network = keras.models.clone_model(backbone)
        network.set_weights(backbone.get_weights())
        return NetworkBackbone(network, name="backbone", dtype=backbone.dtype_policy, **options)
    check_maps(maps, SIZE)
    return backbone
