"""The predictor of JAX and PyTorch against TensorFlow's, on the same resized pixels."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from canvas_outputs import CATEGORIES, MERGE, SPLIT, flat, images_of, small_model
from PIL import Image
from small_model import make_small_model

from tf_panoptic_fpn.config import SplitConfig
from tf_panoptic_fpn.inference.canvas_predictor import CanvasPredictor
from tf_panoptic_fpn.inference.predictor import Predictor

SCRIPT = pathlib.Path(__file__).with_name("canvas_outputs.py")
# Sums of another order through thirty layers, of values up to 300 (boxes), 1 (scores, masks): seen
# on JAX were 8e-4, 1.5e-5 and 4e-4.
TOLERANCE = {"boxes": 2e-3, "scores": 1e-4, "mask_probs": 2e-3}


class PillowPredictor(Predictor):
    """TensorFlow's, with Pillow's own resizing, from which its own differs in some levels."""

    @staticmethod
    def resize(images, size):
        def resized(images, size):
            pictures = [Image.fromarray(image) for image in images]
            pictures = [p.resize((size[1], size[0]), Image.Resampling.BILINEAR) for p in pictures]
            return np.stack([np.float32(picture) for picture in pictures])

        return tf.ensure_shape(
            tf.numpy_function(resized, [images, size], tf.float32), [None, None, None, 3]
        )


@pytest.fixture(scope="module")
def expected(goldens_dir):
    predictor = PillowPredictor(small_model(goldens_dir), CATEGORIES, MERGE, SPLIT)
    return flat([predictor.run(images) for images in images_of(goldens_dir)])


def assert_close(received, expected):
    """The same detections; segments in the same order; maps but for 10 pixels an image."""
    assert set(received) == set(expected)
    for name, value in expected.items():
        last = name.rpartition("/")[2]
        if last in TOLERANCE and ("/instances/" in name or last == "scores"):
            np.testing.assert_allclose(
                received[name], value, rtol=0, atol=TOLERANCE[last], err_msg=name
            )
        elif last.endswith("_map"):
            assert received[name].shape == value.shape
            assert np.count_nonzero(received[name] != value) <= 10, name
        elif last == "areas":
            np.testing.assert_allclose(received[name], value, rtol=0, atol=10, err_msg=name)
        elif last == "boxes":  # tight ones: a pixel may be at their rim
            np.testing.assert_allclose(received[name], value, rtol=0, atol=2, err_msg=name)
        else:
            np.testing.assert_array_equal(received[name], value, err_msg=name)


def test_segments_are_there_to_be_compared(expected):
    counts = [int(expected[f"{i}/{j}/num_segments"]) for i in range(3) for j in range(2)]
    assert min(counts) > 5
    ids = np.concatenate([expected[f"{i}/0/category_ids"] for i in range(3)])
    assert ids.max() >= 2**40
    assert len(np.unique(expected["1/0/semantic_map"])) > 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_equals_tensorflows(backend, expected, goldens_dir, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed (pip install .[backends])")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(goldens_dir), str(tmp_path / "outputs.npz")],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    received = dict(np.load(tmp_path / "outputs.npz"))
    assert received.pop("backend") == backend
    # On JAX the images of the second and the third batch are of one program.
    assert received.pop("traced") == (2 if backend == "jax" else 3)
    assert_close(received, expected)


@pytest.mark.parametrize(
    "changes", [{"tasks": ("instance",)}, {"tasks": ("semantic",)}, {"semantic_things": "all"}]
)
def test_models_of_one_task(changes):
    keras.utils.set_random_seed(0)
    model = make_small_model(**changes)
    images = np.random.default_rng(0).integers(0, 255, (1, 100, 141, 3)).astype(np.uint8)
    split = SplitConfig(short_sides=(64,), max_long_side=512)
    (ours,) = CanvasPredictor(model, CATEGORIES, MERGE, split).run(images)
    (theirs,) = PillowPredictor(model, CATEGORIES, MERGE, split).run(images)
    assert set(ours) == set(theirs)
    for name in ("category_ids", "is_thing"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in {"panoptic_map", "semantic_map"}.intersection(theirs):
        assert np.count_nonzero(ours[name] != theirs[name]) <= 10, name


def test_the_smallest_canvas_that_holds_the_image():
    split = SplitConfig(short_sides=(800,), max_long_side=1333)
    canvases = [(1344, 1344), (800, 1344), (1344, 800)]
    predictor = CanvasPredictor(make_small_model(), CATEGORIES, MERGE, split, canvases)
    found = [predictor._network_canvas(size) for size in ((800, 1216), (1216, 800), (801, 900))]
    assert found == [(800, 1344), (1344, 800), (1344, 1344)]
    without = CanvasPredictor(make_small_model(), CATEGORIES, MERGE, split)
    assert without._network_canvas((800, 1201)) == (800, 1216)
