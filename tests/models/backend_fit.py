"""Fits a tiny model on the Keras backend of the environment and stores its losses and weights.

    KERAS_BACKEND=jax python backend_fit.py WEIGHTS.npz OUTPUT.npz

Other backends than TensorFlow run without it. JAX splits each batch over all of its devices.
"""

import os
import pathlib
import sys

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    sys.modules["tensorflow"] = None

import keras
import numpy as np
from keras import ops

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_model import make_batch, make_tiny_model, short_resnets  # noqa: E402

from tf_panoptic_fpn import schema  # noqa: E402

STEPS = 2


def make_model():
    with short_resnets():
        model = make_tiny_model()
    # Without XLA by default; JAX without it runs each operation by itself.
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), jit_compile=keras.backend.backend() == "jax"
    )
    return model


def fit(model):
    """Dict: what each step and an evaluation report, and the trained weights."""
    batch = make_batch(2, (64, 64))
    batch[schema.GT_CLASSES][0, 1:] = -1  # the images' numbers of foreground rois differ
    results = {}
    for step in range(STEPS):
        history = model.fit(batch, batch, batch_size=2, shuffle=False, verbose=0).history
        results |= {f"{step}/{name}": np.float64(values[0]) for name, values in history.items()}
    evaluated = model.evaluate(batch, batch, batch_size=2, return_dict=True, verbose=0)
    results |= {f"evaluated/{name}": np.float64(value) for name, value in evaluated.items()}
    for variable in model.trainable_variables:
        results[f"weights/{variable.path}"] = ops.convert_to_numpy(variable.value)
    return results


def main(weights, output):
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    model = make_model()
    with np.load(weights) as stored:
        for variable in model.trainable_variables:
            variable.assign(stored[variable.path])
    np.savez(output, **fit(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
