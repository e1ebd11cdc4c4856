"""The model of Triton's Python backend; an export for Triton holds it as `1/model.py`.

It runs the SavedModel beside it and needs TensorFlow and NumPy alone.
"""

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
        folder = os.path.join(args["model_repository"], args["model_version"])
        # Its signatures do not keep it alive.
        self._loaded = tf.saved_model.load(os.path.join(folder, "saved_model"))
        self._serve = self._loaded.signatures["serving_default"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A request has images, string `[B, 1]`; one with a bad image is answered by an error."""
        images = [
            pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy().reshape(-1)
            for request in requests
        ]
        return [
            _response(request, answer)
            for request, answer in zip(requests, self._answers(images), strict=True)
        ]

    def _answers(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray] | str]:
        """For each request the outputs of its images, or what is wrong with one of them."""
        try:
            outputs = self._serve(tf.constant(np.concatenate(images), tf.string))
        except tf.errors.InvalidArgumentError as error:  # it names no image
            if len(images) > 1:
                return [answer for one in images for answer in self._answers([one])]
            return [_reason(error)]
        outputs = {name: value.numpy() for name, value in outputs.items()}
        answers, start = [], 0
        for count in map(len, images):
            rows = {name: value[start : start + count] for name, value in outputs.items()}
            answers.append(_refusal(rows) or _cropped(rows))
            start += count
        return answers


def _reason(error: Exception) -> str:
    """What is wrong, without the names of operators around it."""
    text = " ".join(str(error).split()).rpartition("<stack traces unavailable>")[2]
    return text.partition(" [[")[0].strip()


def _refusal(rows: dict[str, np.ndarray]) -> str:
    reasons = [text.decode() for text in rows.get(ERROR, ())]
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
