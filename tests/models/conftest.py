"""Fixtures of the goldens' small Panoptic FPN."""

import json

import pytest
from float64 import float64
from small_model import make_small_model

from tf_panoptic_fpn.weights.detectron2 import load_detectron2


@pytest.fixture(scope="session")
def small_model(goldens_dir):
    """The small Panoptic FPN with the goldens' weights."""
    model = make_small_model()
    load_detectron2(model, goldens_dir / "weights_small.npz")
    return model


@pytest.fixture(scope="session")
def small_model_64(goldens_dir):
    """The same in float64."""
    with float64():
        model = make_small_model()
    load_detectron2(model, goldens_dir / "weights_small.npz")
    return model


@pytest.fixture(scope="session")
def noise(goldens_dir):
    """Rounding noise of the reference: case -> key -> `max_abs_diff` or `mismatches`."""
    return json.loads((goldens_dir / "fp64_noise.json").read_text())
