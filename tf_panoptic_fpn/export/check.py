"""What was exported, loaded without this package and compared with the model in Python."""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.inference.predictor import Predictor

SIZES = ((90, 120), (75, 50), (1, 1))  # of the images that are compared, in one batch
MAX_PIXELS, MAX_SCORE = 10, 1e-4  # that may differ, in the map of an image and in a score
PROGRAM = """
import sys
sys.modules["keras"] = sys.modules["tf_panoptic_fpn"] = None  # an import of either fails
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
files = [tf.io.read_file(path) for path in sys.argv[3:]]
outputs = loaded.signatures["serving_default"](image_bytes=tf.stack(files))
np.savez(sys.argv[2], **{name: value.numpy() for name, value in outputs.items()
                         if value.dtype != tf.string})
"""


def check_export(folder: pathlib.Path, predictor: Predictor, max_pixels: int) -> None:
    """Compares a SavedModel, in a process that has TensorFlow alone, with its predictor.

    Args:
        folder: of the SavedModel.
        predictor: the `Predictor` that was exported.
        max_pixels: int, of an image that it serves.

    Raises:
        PanopticError: if it cannot be loaded, a panoptic map differs in more than MAX_PIXELS pixels
            or a score by more than MAX_SCORE.
    """
    images = [example_image(*size) for size in SIZES if size[0] * size[1] <= max_pixels]
    with tempfile.TemporaryDirectory(prefix="check_export_") as name:
        scratch = pathlib.Path(name)
        files = [scratch / f"{i}.png" for i in range(len(images))]
        for file, image in zip(files, images, strict=True):
            file.write_bytes(tf.io.encode_png(image).numpy())
        command = [sys.executable, "-c", PROGRAM, folder, scratch / "served.npz", *files]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        done = subprocess.run(
            [*map(str, command)],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise PanopticError(f"the exported model cannot be run: {reason}")
        with np.load(scratch / "served.npz") as served:
            outputs = dict(served)
    for row, image in enumerate(images):
        _compare(predictor.run(image[None])[0], {k: v[row] for k, v in outputs.items()})


def example_image(height: int, width: int) -> np.ndarray:
    """Bright rectangles on a ramp, always the same: uint8 `[H, W, 3]`."""
    rng = np.random.default_rng(height)
    ramp = np.linspace(0, 120, width) + np.linspace(0, 60, height)[:, None]
    image = np.repeat(ramp[..., None], 3, axis=-1)
    for _ in range(6):
        top, left = (rng.uniform(0, 0.5, 2) * [height, width]).astype(int)
        bottom, right = (rng.uniform(0.5, 1, 2) * [height, width]).astype(int)
        image[top:bottom, left:right] = rng.uniform(0, 255, 3)
    return image.astype(np.uint8)


def _compare(expected: dict, served: dict[str, np.ndarray]) -> None:
    height, width = expected[schema.PANOPTIC_MAP].shape
    if served["image_size"].tolist() != [height, width]:
        raise PanopticError(f"the exported model does not serve an image of {height}x{width}")
    pixels = served[schema.PANOPTIC_MAP][:height, :width] != expected[schema.PANOPTIC_MAP]
    if pixels.sum() > MAX_PIXELS:
        raise PanopticError(
            f"the exported model differs from the model: {pixels.sum()} of {pixels.size} pixels of "
            f"a panoptic map, where {MAX_PIXELS} may"
        )
    scores = np.abs(served[schema.SCORES] - expected[schema.SCORES]).max(initial=0.0)
    if scores > MAX_SCORE:
        raise PanopticError(
            f"the exported model differs from the model: a score by {scores:.2g}, where "
            f"{MAX_SCORE:g} is allowed"
        )
