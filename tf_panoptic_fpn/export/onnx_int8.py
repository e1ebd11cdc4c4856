"""An ONNX file whose convolutions and dense layers compute in 8 bits."""

import logging
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from tf_panoptic_fpn.data.splits import load_split
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.inference.onnx_session import ERRORS_ONLY, WARNINGS

CALIBRATION_IMAGES = 32
QUANTIZED = ["Conv", "Gemm"]


def calibration_images(source: ModelSource) -> list[np.ndarray]:
    """Reads images of the training split, evenly spread over it.

    Args:
        source: `ModelSource`, of a run or with a configuration.

    Returns:
        List of uint8 `[H, W, 3]`.

    Raises:
        ConfigError: if there is no data set.
        DataError: if it cannot be read.
    """
    if not source.has_data:
        raise ConfigError(
            f"--int8 needs images of the training data: {source.name} is not a run, so --config "
            "must name the data set"
        )
    config = source.load_config()
    images = load_split(config.data, "train", config.model.semantic_things).images
    count = min(CALIBRATION_IMAGES, len(images))
    chosen = (images[i * len(images) // count] for i in range(count))
    return [read_image(record.image_path, config.data.pixel_range) for record in chosen]


class _Images(CalibrationDataReader):
    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self._rest: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._rest, None)
        return None if image is None else {"images": image[None]}


def quantize(
    path: str | os.PathLike, output: str | os.PathLike, images: Sequence[np.ndarray]
) -> None:
    """Quantises an ONNX file that `export.onnx_file` wrote.

    The weights become int8, a scale for each channel, of 7 bits, since processors without VNNI
    saturate at 8; activations uint8, their range that of the images. All else stays float32.

    Args:
        path: of the file.
        output: path of the new file.
        images: list of uint8 `[H, W, 3]`.
    """
    # Their warnings are of a step before it that changes nothing here, and of the thresholds.
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    try:
        quantize_static(
            pathlib.Path(path),
            pathlib.Path(output),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        logging.disable(logging.NOTSET)
        onnxruntime.set_default_logger_severity(WARNINGS)
