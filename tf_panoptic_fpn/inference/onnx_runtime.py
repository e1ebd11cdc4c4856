"""An exported ONNX file as a predictor; needs neither TensorFlow nor Keras."""

import os

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.inference.exported_metadata import ExportedPredictor, read_categories
from tf_panoptic_fpn.inference.onnx_session import open_session


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


def onnx_categories(path: str | os.PathLike) -> CategoryTable:
    """Reads the `CategoryTable` of an exported ONNX file."""
    session = open_session(path, optimize=False)
    return read_categories(session.get_modelmeta().custom_metadata_map, path)
