"""Panoptic Feature Pyramid Networks (arXiv:1901.02446) for TensorFlow and Keras 3."""

import os
import sys

if (
    sys.argv[0] == "-m"
):  # `python -m tf_panoptic_fpn`: a command, which shows TensorFlow's errors only
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tf_panoptic_fpn.config import Config, load_config
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.weights.zoo import from_pretrained

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "PanopticError",
    "PanopticFPN",
    "build_model",
    "from_pretrained",
    "load_config",
    "load_model",
]


def __getattr__(name):
    """Imports what needs TensorFlow when it is asked for: the model runs on any Keras backend."""
    if name in ("build_model", "load_model"):
        from tf_panoptic_fpn import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
