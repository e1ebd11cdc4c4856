"""The model of Triton's Python backend; an export for Triton holds it as `1/model.py`.

It runs the SavedModel beside it, and needs TensorFlow and NumPy alone, or the ONNX file, and needs
onnxruntime, Pillow and NumPy.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

INPUT = "image_bytes"
ERROR = "error"  # string [B], of an image that is refused; "" of the others
SIZE = "image_size"
MAPS = ("panoptic_map", "semantic_map")  # padded to the largest image of a batch


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = os.path.join(args["model_repository"], args["model_version"])
        config = json.loads(args["model_config"])
        is_onnx = os.path.isfile(os.path.join(folder, "model.onnx"))
        self._serve = open_onnx(folder, config) if is_onnx else SavedModel(folder)
        self._defaults = self._serve.defaults

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A request has images, string `[B, 1]`, and may have thresholds of each, `[B, 1]`; one
        with a bad image is answered by an error."""
        inputs = [self._inputs(request) for request in requests]
        return [
            _response(request, answer)
            for request, answer in zip(requests, self._answers(inputs), strict=True)
        ]

    def _inputs(self, request: Any) -> dict[str, np.ndarray]:
        """The inputs of its images; of none where `image_bytes` is missing, which, as there are
        optional inputs, the server does not see."""
        given = pb_utils.get_input_tensor_by_name(request, INPUT)
        images = np.zeros(0, object) if given is None else given.as_numpy().reshape(-1)
        inputs = {INPUT: images}
        for name, default in self._defaults.items():
            values = pb_utils.get_input_tensor_by_name(request, name)
            inputs[name] = (
                np.full(len(images), default)
                if values is None or given is None
                else values.as_numpy().reshape(-1)
            )
        return inputs

    def _answers(
        self, inputs: Sequence[dict[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray] | str]:
        """For each request the outputs of its images, or what is wrong with one of them."""
        batch = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        outputs = self._serve(**batch) if len(batch[INPUT]) else {ERROR: batch[INPUT]}
        answers: list[dict[str, np.ndarray] | str] = []
        start = 0
        for count in (len(one[INPUT]) for one in inputs):
            rows = {name: value[start : start + count] for name, value in outputs.items()}
            answers.append(_refusal(rows) or _cropped(rows))
            start += count
        return answers


class SavedModel:
    """The signature `with_thresholds` of the SavedModel in a folder; arrays in and out."""

    def __init__(self, folder: str) -> None:
        import tensorflow as tf

        folder = os.path.join(folder, "saved_model")
        self._loaded = tf.saved_model.load(folder)  # its signatures do not keep it alive
        self._serve = self._loaded.signatures["with_thresholds"]
        self._as_tensor = tf.constant
        with open(os.path.join(folder, "assets", "settings.json"), encoding="utf-8") as file:
            merge = json.load(file)["merge"]
        inputs = self._serve.structured_input_signature[1]
        merge["max_detections"] = np.iinfo(np.int32).max  # all that the model finds
        self.defaults = {
            name: np.array(merge[name], spec.dtype.as_numpy_dtype)
            for name, spec in inputs.items()
            if name != INPUT
        }

    def __call__(self, **batch: np.ndarray) -> dict[str, np.ndarray]:
        inputs = {
            name: self._as_tensor(value, "string" if name == INPUT else None)
            for name, value in batch.items()
        }
        return {name: value.numpy() for name, value in self._serve(**inputs).items()}


def open_onnx(folder: str, config: dict[str, Any]) -> Any:
    """The `OnnxModel` of the ONNX file in a folder, which holds what of `tf_panoptic_fpn` it needs.

    `config` is that of the model; its parameter `max_pixels` is the limit for an image.
    """
    sys.path.insert(0, folder)
    from PIL import Image

    from tf_panoptic_fpn.export.triton_onnx import OnnxModel

    Image.MAX_IMAGE_PIXELS = None  # the parameter is the limit
    max_pixels = int(config["parameters"]["max_pixels"]["string_value"])
    return OnnxModel(os.path.join(folder, "model.onnx"), max_pixels)


def _refusal(rows: dict[str, np.ndarray]) -> str:
    reasons = [text.decode() for text in rows[ERROR]]
    if not reasons:
        return f"a request must have images: the input {INPUT} is missing"
    return "; ".join(f"image {n}: {reason}" for n, reason in enumerate(reasons) if reason)


def _cropped(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps as large as the largest image of the request, whatever else was in the batch."""
    height, width = rows[SIZE].max(axis=0)
    return {
        name: value[:, :height, :width] if name in MAPS else value for name, value in rows.items()
    }


def _response(request: Any, answer: dict[str, np.ndarray] | str) -> Any:
    if isinstance(answer, str):
        error = pb_utils.TritonError(answer, pb_utils.TritonError.INVALID_ARG)  # HTTP 400
        return pb_utils.InferenceResponse(error=error)
    names = [name for name in request.requested_output_names() if name in answer]
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(answer[name])) for name in names]
    )
