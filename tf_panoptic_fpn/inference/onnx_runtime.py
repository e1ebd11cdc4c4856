"""An exported ONNX file as a predictor; needs neither TensorFlow nor Keras."""

import os
from typing import TYPE_CHECKING

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.exported_metadata import ExportedPredictor, read_categories
from tf_panoptic_fpn.messages import one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# onnxruntime's levels. It warns of the thresholds, which are inputs with defaults.
WARNINGS, ERRORS_ONLY = 2, 3


class OnnxPredictor(ExportedPredictor):
    """Runs an exported ONNX file with onnxruntime.

    Args:
        path: of the file.
        categories: `CategoryTable` of the data set; None: the one that was exported with it.
        threads: int, of a layer's work; None: one for each core.

    Raises:
        ConfigError: if the file cannot be loaded, or is none that `export` wrote.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        categories: CategoryTable | None = None,
        threads: int | None = None,
    ) -> None:
        self._session = open_session(path, threads)
        super().__init__(path, self._session.get_modelmeta().custom_metadata_map, categories)

    def outputs_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {"images": images}), strict=True))


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


def onnx_categories(path: str | os.PathLike) -> CategoryTable:
    """Reads the `CategoryTable` of an exported ONNX file."""
    session = open_session(path, optimize=False)
    return read_categories(session.get_modelmeta().custom_metadata_map, path)
