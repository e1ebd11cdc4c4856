"""TensorFlow without the lines that it writes at each start."""

import os
import re
import sys
import tempfile

# Its C++ writes these before it reads any level of logging: information, and that there is no GPU
# (error 303 is that of a machine without a driver).
_START = re.compile(
    rb"WARNING: All log messages before absl"
    rb"|I\d{4} \d\d:"
    rb"|E\d{4} \d\d:.*cuInit.*(UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
)


def import_tensorflow() -> None:
    """Imports TensorFlow; of what it writes to stderr meanwhile, warnings and errors are kept."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # looks for GPUs, once
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not _START.match(line):
                    os.write(2, line)
