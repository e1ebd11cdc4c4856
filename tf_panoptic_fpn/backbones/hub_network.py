"""KerasHub, an extra, and its networks without weights."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import keras

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.messages import one_line


def hub_network(architecture: str, arguments: Mapping[str, Any]) -> keras.Model:
    """Returns a backbone of KerasHub, untrained.

    Raises:
        ConfigError: if KerasHub is not installed or has no such class.
    """
    kind = getattr(import_keras_hub().models, architecture, None)
    if kind is None:
        raise ConfigError(f"KerasHub has no {architecture}; it may be too old")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{architecture} of KerasHub cannot be made for images of any size: {one_line(error)}"
        ) from None


def import_keras_hub() -> ModuleType:
    """Imports KerasHub, or raises ConfigError."""
    try:
        import keras_hub
    except ImportError as error:
        raise ConfigError(
            "`backbone: keras_hub/...` takes KerasHub: pip install tf-panoptic-fpn[keras_hub] "
            f"({one_line(error)})"
        ) from None
    return keras_hub
