"""Imports of TensorFlow and Keras without what they import beside themselves."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

from tf_panoptic_fpn.garbage_collection import without_collection

# Where these are installed, TensorFlow and Keras import them for functions that no command calls.
OPTIONAL = ("IPython", "jax", "matplotlib", "pandas", "scipy")


@contextlib.contextmanager
def light_imports() -> Iterator[None]:
    """Has `OPTIONAL` packages seem absent within, and collects no garbage, of which there is none.

    On another backend of Keras, `KERAS_BACKEND`, none is hidden. What was imported stays out of
    later collections.
    """
    has_use = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    hidden = [name for name in OPTIONAL if name not in sys.modules and not has_use]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))
    try:
        with without_collection():
            yield
            gc.freeze()
    finally:
        for name in hidden:
            del sys.modules[name]
