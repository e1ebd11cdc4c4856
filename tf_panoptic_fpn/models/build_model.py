"""A model from its configuration, or from its file."""

import os
import pathlib

import keras

from tf_panoptic_fpn.config import ModelConfig
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN


def build_model(config: ModelConfig, dtype: str | None = None) -> PanopticFPN:
    """Returns the untrained `PanopticFPN` of a `ModelConfig`, with the policy `dtype` or Keras'."""
    return PanopticFPN(**config.model_dump(), name="panoptic_fpn", dtype=dtype)


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
