"""A model for OpenVINO, made of its ONNX file."""

import os
import pathlib
import tempfile
import typing
from collections.abc import Sequence

import numpy as np
import openvino

from tf_panoptic_fpn.export.onnx_file import metadata_of, write_onnx
from tf_panoptic_fpn.export.onnx_int8 import calibration_images
from tf_panoptic_fpn.export.output_path import output_file
from tf_panoptic_fpn.export.same_results import check_same_results
from tf_panoptic_fpn.inference.load_predictor import predictor_of
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.inference.openvino_runtime import SECTION, OpenvinoPredictor
from tf_panoptic_fpn.inference.predictor import Predictor


def export_openvino(
    source: ModelSource, output: str | os.PathLike | None = None, int8: bool = False
) -> pathlib.Path:
    """Exports a model for OpenVINO.

    Args:
        source: `ModelSource`.
        output: path of the `.xml`, see `write_openvino`; by default `model.xml` of its run.
        int8: see `export.onnx_file.export_onnx`.

    Returns:
        The path, a `pathlib.Path`.

    Raises:
        ConfigError: as `export.onnx_file.export_onnx`.
    """
    path = output_file(source, output, ".xml")
    images = calibration_images(source) if int8 else ()
    write_openvino(typing.cast(Predictor, predictor_of(source)), path, images)
    return path


def write_openvino(
    predictor: Predictor, path: str | os.PathLike, calibration: Sequence[np.ndarray] = ()
) -> None:
    """Writes an OpenVINO model: what `export.onnx_file.write_onnx` writes, but for the thresholds,
    which are fixed.

    Args:
        predictor: a `Predictor`.
        path: of the `.xml`; the `.bin` with the weights goes beside it.
        calibration: see `write_onnx`.

    Raises:
        ConfigError, PanopticError: as `write_onnx`.
    """
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export_") as beside:
        onnx_file, written = (pathlib.Path(beside) / f"model{s}" for s in (".onnx", ".xml"))
        write_onnx(predictor, onnx_file, calibration)
        model = openvino.Core().read_model(onnx_file)
        for key, text in metadata_of(predictor).items():
            model.set_rt_info(text, [SECTION, key])
        openvino.save_model(model, written, compress_to_fp16=False)
        exported = OpenvinoPredictor(written)
        check_same_results(predictor, exported, path, same_network=not calibration)
        for suffix in (".bin", ".xml"):
            os.replace(written.with_suffix(suffix), path.with_suffix(suffix))
