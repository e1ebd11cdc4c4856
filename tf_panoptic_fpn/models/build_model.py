"""A model from its configuration, or from its file."""

import os
import pathlib

import keras

from tf_panoptic_fpn.backbones.make_backbone import make_backbone
from tf_panoptic_fpn.config import ModelConfig
from tf_panoptic_fpn.config.model import RESNETS
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN


def build_model(config: ModelConfig, dtype: str | None = None) -> PanopticFPN:
    """Returns the untrained `PanopticFPN` of a `ModelConfig`, with the policy `dtype` or Keras'."""
    return PanopticFPN(**config.model_dump(), name="panoptic_fpn", dtype=dtype)


def check_backbone(config: ModelConfig) -> None:
    """Makes a backbone of Keras' libraries, for what is wrong with it before there is other work.

    Raises:
        ConfigError: if its name is unknown, or a stride is missing.
        WeightsError: if files that a name stands for cannot be had.
    """
    if config.backbone not in RESNETS:
        make_backbone(config.backbone, config.model_dump())


def load_model(path: str | os.PathLike) -> PanopticFPN:
    """Loads a `PanopticFPN` from a `.keras` file.

    Raises:
        ConfigError: if the file is absent or holds something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be loaded: {' '.join(str(error).split())}") from None
    if not isinstance(model, PanopticFPN):
        raise ConfigError(f"{path}: must hold a PanopticFPN. Received: {type(model).__name__}")
    return model
