"""How far the stored gradients of the training goldens are from the same gradients in float64.

    python tests/models/gradient_noise.py

writes `tests/goldens/gradient_noise.json`: case -> name -> `norm`, the relative difference of the
two norms, and `tensor`, the norm of the difference over the norm, where the whole is stored.
"""

import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import core

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from golden_training import losses_and_gradients  # noqa: E402
from small_model import make_small_model  # noqa: E402

from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels  # noqa: E402
from tf_panoptic_fpn.weights import load_detectron2  # noqa: E402
from tf_panoptic_fpn.weights.detectron2_layout import weight_plan  # noqa: E402

GOLDENS = ROOT / "tests" / "goldens"


def compute_in_float64():
    """Makes Keras turn every float32 that the model asks for into a float64."""
    keras.config.set_dtype_policy("float64")
    standardize_dtype, convert_to_tensor = core.standardize_dtype, core.convert_to_tensor

    def standardize_to_64(dtype):
        dtype = standardize_dtype(dtype)
        return "float64" if dtype == "float32" else dtype

    def convert_to_64(x, dtype=None, sparse=None, ragged=None):
        x = convert_to_tensor(x, dtype, sparse, ragged)
        return tf.cast(x, "float64") if x.dtype == "float32" else x

    # TensorFlow's kernels for crops and for resizing give float32 whatever they are given.
    tf.image.resize = resize_bilinear
    replace(standardize_dtype, standardize_to_64)
    replace(convert_to_tensor, convert_to_64)
    replace(use_tensorflow_kernels, lambda: False)


def replace(function, other):
    """In every module that has imported it."""
    for name, module in list(sys.modules.items()):
        ours = name.startswith(("keras.src.backend.tensorflow", "tf_panoptic_fpn"))
        if ours and getattr(module, function.__name__, None) is function:
            setattr(module, function.__name__, other)


def resize_bilinear(x, size):
    height, width = (axis_weights(*lengths) for lengths in zip(x.shape[1:3], size, strict=True))
    return tf.einsum("Hh,bhwc,Ww->bHWc", height, x, width)


def axis_weights(length, new_length):
    """Float64 `[new_length, length]`, half-pixel centres."""
    points = (np.arange(new_length) + 0.5) * length / new_length - 0.5
    points = np.clip(points, 0, length - 1)
    return np.maximum(0, 1 - np.abs(points[:, None] - np.arange(length)))


def distances():
    model = make_small_model()
    load_detectron2(model, GOLDENS / "weights_small.npz")
    result = {}
    for case in ("train_a", "train_b"):
        golden = dict(np.load(GOLDENS / f"{case}.npz"))
        norms = dict(zip(golden["grad_names"], golden["grad_norms"], strict=True))
        gradients = losses_and_gradients(model, golden)[2]
        result[case] = {}
        for variable, (name, *_), convert in weight_plan(model):
            if variable.path not in gradients:
                continue
            truth = gradients[variable.path].numpy()
            assert truth.dtype == np.float64
            norm = np.linalg.norm(truth)
            entry = result[case][name] = {"norm": abs(norms[name] - norm) / norm}
            if f"grad/{name}" in golden:
                stored = convert(golden[f"grad/{name}"].astype("float64"))
                entry["tensor"] = np.linalg.norm(stored - truth) / norm
            entry.update({key: float(f"{value:.2e}") for key, value in entry.items()})
    return result


if __name__ == "__main__":
    compute_in_float64()
    lines = json.dumps(distances(), indent=0).replace("{\n", "{").replace("\n}", "}")
    lines = lines.replace(',\n"tensor"', ', "tensor"')
    (GOLDENS / "gradient_noise.json").write_text(lines + "\n")
