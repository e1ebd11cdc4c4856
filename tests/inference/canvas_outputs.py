"""Runs the canvas predictor on the Keras backend of the environment and stores what it returns.

    KERAS_BACKEND=jax python canvas_outputs.py GOLDENS OUTPUT.npz

Other backends than TensorFlow run without it.
"""

import os
import pathlib
import sys

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    sys.modules["tensorflow"] = None

import keras
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_model import make_small_model  # noqa: E402

from tf_panoptic_fpn.categories import Category, CategoryTable  # noqa: E402
from tf_panoptic_fpn.config import MergeConfig, SplitConfig  # noqa: E402
from tf_panoptic_fpn.inference.canvas_predictor import CanvasPredictor  # noqa: E402
from tf_panoptic_fpn.weights.detectron2 import load_detectron2  # noqa: E402

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(2**40 + k, f"stuff {k}", False) for k in range(4))
)
MERGE = MergeConfig(score_threshold=0.3, stuff_area=64)
SPLIT = SplitConfig(short_sides=(128,), max_long_side=512)
# Of the second, 128x189 to the network, the third has the canvases.
SIZES = ((128, 160), (203, 300), (210, 310))


def small_model(goldens):
    model = make_small_model()
    load_detectron2(model, goldens / "weights_small.npz")
    return model


def images_of(goldens):
    """Batches of two images: the golden's and its mirror image, at each of SIZES."""
    golden = np.load(goldens / "infer_a.npz")
    image = np.uint8(golden["image_0"][..., ::-1])
    images = [Image.fromarray(each) for each in (image, image[:, ::-1])]
    return [
        np.stack([np.asarray(image.resize((width, height))) for image in images])
        for height, width in SIZES
    ]


def flat(results):
    """Of the results of batches a dict of arrays by "BATCH/ROW/NAME"."""
    arrays = {}
    for i, batch in enumerate(results):
        for j, result in enumerate(batch):
            instances = result.pop("instances")
            arrays |= {f"{i}/{j}/{name}": value for name, value in result.items()}
            arrays |= {f"{i}/{j}/instances/{name}": value for name, value in instances.items()}
    return arrays


class CountedPredictor(CanvasPredictor):
    """Counts how often JAX has traced what it compiles."""

    traced = 0

    def predict_canvas(self, *arguments):
        self.traced += 1
        return super().predict_canvas(*arguments)


def main(goldens, output):
    goldens = pathlib.Path(goldens)
    predictor = CountedPredictor(small_model(goldens), CATEGORIES, MERGE, SPLIT)
    arrays = flat([predictor.run(images) for images in images_of(goldens)])
    np.savez(output, traced=predictor.traced, backend=keras.backend.backend(), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
