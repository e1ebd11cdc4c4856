"""TensorFlow without the lines that it writes at each start, and without what no command needs."""

import os
import re
import sys
import tempfile

from tf_panoptic_fpn.commands.light_imports import light_imports
from tf_panoptic_fpn.errors import ConfigError

# Its C++ writes these before it reads any level of logging: information, and that there is no GPU
# (error 303 is that of a machine without a driver).
_START = re.compile(
    rb"WARNING: All log messages before absl"
    rb"|I\d{4} \d\d:"
    rb"|E\d{4} \d\d:.*cuInit.*(UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
)


def import_tensorflow() -> None:
    """Imports TensorFlow; of what it writes to stderr meanwhile, warnings and errors are kept.

    Raises:
        ConfigError: if `KERAS_BACKEND` names another backend than TensorFlow.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise ConfigError(
            "`KERAS_BACKEND` must be unset or 'tensorflow' for this command; on other backends "
            f"train with `fit` of the model. Received: {backend!r}"
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
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not _START.match(line):
                    os.write(2, line)
