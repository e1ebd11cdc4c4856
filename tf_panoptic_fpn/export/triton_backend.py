"""The model of Triton's Python backend; an export for Triton holds it as `1/model.py`.

It runs the SavedModel beside it and needs TensorFlow and NumPy alone.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import triton_python_backend_utils as pb_utils

INPUT = "image_bytes"
ERROR = "error"  # string [B], of an image that is refused; "" of the others
SIZE = "image_size"
MAPS = ("panoptic_map", "semantic_map")  # padded to the largest image of a batch


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = os.path.join(args["model_repository"], args["model_version"], "saved_model")
        self._loaded = tf.saved_model.load(folder)  # its signatures do not keep it alive
        self._serve = self._loaded.signatures["with_thresholds"]
        with open(os.path.join(folder, "assets", "settings.json"), encoding="utf-8") as file:
            merge = json.load(file)["merge"]
        inputs = self._serve.structured_input_signature[1]
        merge["max_detections"] = np.iinfo(np.int32).max  # all that the model finds
        self._defaults = {
            name: np.array(merge[name], spec.dtype.as_numpy_dtype)
            for name, spec in inputs.items()
            if name != INPUT
        }

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A request has images, string `[B, 1]`, and may have thresholds of each, `[B, 1]`; one
        with a bad image is answered by an error."""
        inputs = [self._inputs(request) for request in requests]
        return [
            _response(request, answer)
            for request, answer in zip(requests, self._answers(inputs), strict=True)
        ]

    def _inputs(self, request: Any) -> dict[str, np.ndarray]:
        images = pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy().reshape(-1)
        inputs = {INPUT: images}
        for name, default in self._defaults.items():
            given = pb_utils.get_input_tensor_by_name(request, name)
            inputs[name] = (
                np.full(len(images), default) if given is None else given.as_numpy().reshape(-1)
            )
        return inputs

    def _answers(
        self, inputs: Sequence[dict[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray] | str]:
        """For each request the outputs of its images, or what is wrong with one of them."""
        batch = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        batch = {
            name: tf.constant(value, tf.string if name == INPUT else None)
            for name, value in batch.items()
        }
        outputs = {name: value.numpy() for name, value in self._serve(**batch).items()}
        answers: list[dict[str, np.ndarray] | str] = []
        start = 0
        for count in (len(one[INPUT]) for one in inputs):
            rows = {name: value[start : start + count] for name, value in outputs.items()}
            answers.append(_refusal(rows) or _cropped(rows))
            start += count
        return answers


def _refusal(rows: dict[str, np.ndarray]) -> str:
    reasons = [text.decode() for text in rows[ERROR]]
    return "; ".join(f"image {n}: {reason}" for n, reason in enumerate(reasons) if reason)


def _cropped(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps as large as the largest image of the request, whatever else was in the batch."""
    height, width = rows[SIZE].max(axis=0) if len(rows[SIZE]) else (0, 0)
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
