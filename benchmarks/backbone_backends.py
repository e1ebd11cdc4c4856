"""Whether a backbone gives the same maps on TensorFlow, JAX and PyTorch.

python benchmarks/backbone_backends.py [--backend=jax --backend=torch] NAME ...

NAME as for `backbone_families.py`. The weights are drawn. A line each: the largest difference of
C2 to C5 from TensorFlow's, over the largest value of the map.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from hub_presets import HUB, make_hub_backbone

from tf_panoptic_fpn.backbones.make_backbone import make_backbone

BACKENDS = ("jax", "torch")
ENVIRONMENT = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles sooner
OPTIONS = {"norm": "sync_batch_norm", "freeze_at": 0, "drop_path": 0.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--output", help="a folder: writes the maps of this process's backend")
    arguments = parser.parse_args()
    if arguments.output:
        for name in arguments.names:
            with contextlib.redirect_stdout(sys.stderr):
                np.savez(pathlib.Path(arguments.output) / name, **maps_of(name))
        return
    backends = arguments.backend or BACKENDS
    with tempfile.TemporaryDirectory() as folder:
        for backend in ("tensorflow", *backends):
            output = pathlib.Path(folder) / backend
            output.mkdir()
            command = [sys.executable, __file__, f"--output={output}", *arguments.names]
            subprocess.run(command, env={**ENVIRONMENT, "KERAS_BACKEND": backend}, check=True)
        for name in arguments.names:
            expected, *others = (
                np.load(pathlib.Path(folder) / backend / f"{name}.npz")
                for backend in ("tensorflow", *backends)
            )
            line = {
                backend: max(difference(expected[level], maps[level]) for level in expected)
                for backend, maps in zip(backends, others, strict=True)
            }
            print(json.dumps({"benchmark": "backbone_backends", "backbone": name, **line}))


def maps_of(name):
    """C2 to C5 of an image of noise, float32."""
    keras.backend.clear_session()
    backbone = make_hub_backbone(name) if name in HUB else f"keras_applications/{name}"
    layer = make_backbone(backbone, OPTIONS)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 64, 96, 3)).astype("float32")
    layer.build(images.shape)
    for variable in layer.weights:
        if variable.dtype != "float32":
            continue
        if len(variable.shape) == 1:  # scales, variances and biases, which keep signals alive
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        else:
            deviation = np.prod(variable.shape[:-1]) ** -0.5
            variable.assign(rng.normal(0, deviation, variable.shape))
    run = layer
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(layer)
    maps = run(keras.ops.convert_to_tensor(images))
    return {level: keras.ops.convert_to_numpy(values) for level, values in maps.items()}


def difference(expected, received):
    return float(np.abs(received - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
