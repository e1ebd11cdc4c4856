"""Weights of this package: `.keras` files of a `PanopticFPN`, and `.safetensors` made from one."""

import json
import os
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint, read_checkpoint
from tf_panoptic_fpn.weights.report import ImportReport, WeightsError
from tf_panoptic_fpn.weights.source import Source

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

CONFIG_KEY = "tf_panoptic_fpn"  # of the metadata of a `.safetensors` file
BACKBONES = ("ResNet", "KerasApplication", "KerasHubBackbone", "VisionTransformer")
_EXPECTED = ("pixel_mean", "pixel_std", "roi_sampling_ratio")


def load_tf_panoptic_fpn(
    model: "PanopticFPN", source: str | os.PathLike, **allowed: str | Iterable[str]
) -> ImportReport:
    """Sets a model's weights from another `PanopticFPN` that this package saved.

    Args:
        model: a `PanopticFPN`.
        source: path of a `.keras` file, or of a `.safetensors` file of `convert-weights`.
        **allowed: what may differ: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of
            `set_weights`, in patterns; names in the source are detectron2's.

    Returns:
        An `ImportReport`, which is printed too.

    Raises:
        WeightsError: on any mismatch that is not allowed; the model is unchanged then.
    """
    from tf_panoptic_fpn.weights.set_weights import set_weights

    return set_weights(model, tf_panoptic_fpn_source(source), **allowed)


def tf_panoptic_fpn_source(source: str | os.PathLike | Checkpoint) -> Source:
    """A file of this package as a `Source`; see `load_tf_panoptic_fpn`."""
    if isinstance(source, Checkpoint):
        config = read_model_config(source)
        arrays, notes = source.arrays, source.notes
    elif is_keras_file(source):
        (arrays, config), notes = _read_keras(source), ()
    else:
        return tf_panoptic_fpn_source(read_checkpoint(source))
    result = Source(dict(arrays), {name: (name,) for name in arrays}, notes=list(notes))
    result.model_config = config
    result.expects = {key: config[key] for key in _EXPECTED}
    backbone = config["backbone"]
    backbone = config if isinstance(backbone, str) else backbone["config"]
    result.expects["stride_in_1x1"] = backbone.get("stride_in_1x1")
    return result


def is_keras_file(path: str | os.PathLike) -> bool:
    """Whether a file is one that `keras.Model.save` wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "model.weights.h5"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _read_keras(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays in detectron2's names, and the arguments of the model."""
    from tf_panoptic_fpn.models.build_model import load_model
    from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays

    try:
        model = load_model(path)
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    return detectron2_arrays(model), model.get_config()


def write_model_config(model: "PanopticFPN") -> dict[str, str]:
    """The metadata that `read_model_config` reads."""
    return {CONFIG_KEY: json.dumps(model.get_config())}


def read_model_config(checkpoint: Checkpoint) -> dict:
    """The arguments of the model in the metadata of a `.safetensors` file."""
    try:
        config = json.loads(checkpoint.metadata[CONFIG_KEY])
        backbone = config["backbone"]
        named = isinstance(backbone, str) or backbone["class_name"] in BACKBONES
        inner = config if isinstance(backbone, str) else backbone["config"]
        kept = "stride_in_1x1" if inner is config or backbone["class_name"] == "ResNet" else "name"
        complete = kept in inner and all(key in config for key in _EXPECTED)
    except (KeyError, TypeError, ValueError):
        named = complete = False
    if not (named and complete):
        raise WeightsError("the file does not say which model of this package it belongs to")
    return config
