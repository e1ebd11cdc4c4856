"""An exported OpenVINO model as a predictor; needs neither TensorFlow nor Keras."""

import os
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.exported_metadata import KEYS, ExportedPredictor, read_categories
from tf_panoptic_fpn.messages import one_line

SECTION = "tf_panoptic_fpn"  # of the model's runtime information
COMPILED = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would compute in bfloat16


class OpenvinoPredictor(ExportedPredictor):
    """Runs an exported OpenVINO model.

    Args:
        path: of its `.xml`; the `.bin` lies beside it.
        categories: `CategoryTable` of the data set; None: the one that was exported with it.
        device: "CPU", "GPU" or another of OpenVINO's.

    Raises:
        ConfigError: if the model cannot be loaded, or is none that `export` wrote.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        categories: CategoryTable | None = None,
        device: str = "CPU",
    ) -> None:
        core, model = _read(path)
        super().__init__(path, _metadata(model), categories)
        try:
            self._compiled = core.compile_model(model, device, COMPILED)
        except RuntimeError as error:
            raise ConfigError(f"{path}: cannot be compiled: {one_line(error)}") from None

    def outputs_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._compiled({"images": images})
        return {output.any_name: np.array(value) for output, value in outputs.items()}


def openvino_categories(path: str | os.PathLike) -> CategoryTable:
    """Reads the `CategoryTable` of an exported OpenVINO model."""
    return read_categories(_metadata(_read(path)[1]), path)


def _read(path: str | os.PathLike) -> tuple[Any, Any]:
    """OpenVINO's core and the model."""
    try:
        import openvino
    except ImportError:
        raise ConfigError(
            f"{path}: needs openvino: pip install 'tf-panoptic-fpn[openvino]'"
        ) from None
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file")
    core = openvino.Core()
    try:
        return core, core.read_model(os.fspath(path))
    except RuntimeError as error:
        raise ConfigError(f"{path}: cannot be loaded: {one_line(error)}") from None


def _metadata(model: Any) -> dict[str, str]:
    held = (key for key in KEYS if model.has_rt_info([SECTION, key]))
    return {key: model.get_rt_info([SECTION, key]).astype(str) for key in held}
