"""Opening an ONNX file; an export for Triton holds this file, too."""

import os
from typing import TYPE_CHECKING

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.messages import one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# onnxruntime's levels. It warns of the thresholds, which are inputs with defaults.
WARNINGS, ERRORS_ONLY = 2, 3


def open_session(
    path: str | os.PathLike, threads: int | None = None, optimize: bool = True
) -> "InferenceSession":
    """Opens an ONNX file on the CPU.

    Raises:
        ConfigError: if there is no onnxruntime, or it cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            f"{path}: needs onnxruntime: pip install 'tf-panoptic-fpn[onnx]'"
        ) from None
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait sleep; spinning, the default, doubles the processor time of small images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise ConfigError(f"{path}: cannot be loaded: {one_line(error)}") from None
