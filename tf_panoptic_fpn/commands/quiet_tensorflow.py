"""TensorFlow without the lines that it writes at each start, and without what no command needs."""

import os
import re
import sys
import tempfile
from collections.abc import Sequence

from tf_panoptic_fpn.commands.light_imports import light_imports
from tf_panoptic_fpn.errors import ConfigError

EVERY_BACKEND = ("tensorflow", "jax", "torch")

# Its C++ writes these before it reads any level of logging: information, and that there is no GPU
# (error 303 is that of a machine without a driver).
_START = re.compile(
    rb"WARNING: All log messages before absl"
    rb"|I\d{4} \d\d:"
    rb"|E\d{4} \d\d:.*cuInit.*(UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
)


def import_tensorflow(backends: Sequence[str] = ("tensorflow",)) -> None:
    """Imports TensorFlow; of what it writes to stderr meanwhile, warnings and errors are kept.

    Args:
        backends: those of Keras that the command runs on. On another than TensorFlow the
            accelerators are left to it.

    Raises:
        ConfigError: if `KERAS_BACKEND` names another one.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend not in backends:
        raise ConfigError(
            f"`KERAS_BACKEND` must be unset or {' or '.join(map(repr, backends))} for this "
            "command; on other backends train with `fit` of the model, and use `predict` and "
            f"`evaluate`. Received: {backend!r}"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    os.environ["KERAS_BACKEND"] = backend  # whatever keras.json says
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            with light_imports():
                import tensorflow as tf

            tf.config.list_physical_devices()  # looks for GPUs, once
            if backend != "tensorflow":
                tf.config.set_visible_devices([], "GPU")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not _START.match(line):
                    os.write(2, line)
