"""A small model whose weights are random again before each test."""

import numpy as np
import pytest
from keras import ops
from small_model import make_small_model

from tf_panoptic_fpn.weights import load_detectron2


@pytest.fixture(scope="session")
def golden(goldens_dir):
    """detectron2's small Panoptic FPN: name -> array."""
    with np.load(goldens_dir / "weights_small.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def built():
    """The model and its first weights."""
    model = make_small_model()
    return model, snapshot(model)


@pytest.fixture
def model(built):
    """The small model with its first weights."""
    model, first = built
    restore(model, first)
    return model


@pytest.fixture(scope="session")
def expected(built, golden):
    """The weights after `load_detectron2`, whose outputs the goldens hold: path -> array."""
    model, first = built
    load_detectron2(model, golden)
    weights = snapshot(model)
    restore(model, first)
    return weights


def snapshot(model):
    return {weight.path: ops.convert_to_numpy(weight) for weight in model.weights}


def restore(model, weights):
    for weight in model.weights:
        weight.assign(weights[weight.path])


@pytest.fixture
def unchanged(model):
    """Fails the test if it leaves a weight of the model changed."""
    before = snapshot(model)
    yield
    for path, value in snapshot(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


@pytest.fixture
def assert_loaded(model, expected, built):
    """Asserts that weights have the values of the golden, or of the first where `kept` says so."""

    def check(kept=(), rtol=1e-6):
        for path, value in snapshot(model).items():
            source = built[1] if path.startswith(tuple(kept)) else expected
            tolerance = {"rtol": rtol, "atol": rtol * np.abs(source[path]).max(initial=0)}
            np.testing.assert_allclose(value, source[path], err_msg=path, **tolerance)

    return check
