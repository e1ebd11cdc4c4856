"""A new model's weights: each from its own draw, and from the distribution that it should be."""

import itertools
import math
import re

import numpy as np
import pytest
from keras import ops
from small_model import make_tiny_model


def msra(height, width, _, outputs):
    return math.sqrt(2 / (height * width * outputs))


def xavier(*sides):
    return math.sqrt(1 / math.prod(sides[:-1]))


# detectron2's: MSRA normal (fan out), Xavier uniform (fan in), and fixed deviations.
KERNELS = {
    r"backbone/.*": ("normal", msra),
    r"fpn/.*": ("uniform", xavier),
    r"semantic_head/.*": ("normal", msra),
    r"rpn_head/.*": ("normal", lambda *_: 0.01),
    r"box_head/fc\d": ("uniform", xavier),
    r"box_head/classes": ("normal", lambda *_: 0.01),
    r"box_head/deltas": ("normal", lambda *_: 0.001),
    r"mask_head/(conv\d|deconv)": ("normal", msra),
    r"mask_head/predictor": ("normal", lambda *_: 0.001),
}
CONSTANTS = {"bias": 0, "beta": 0, "shift": 0, "gamma": 1, "scale": 1}


@pytest.fixture(scope="module")
def weights():
    """Path -> value of each weight, of two classes of layers: kernels, and the others."""
    model = make_tiny_model()
    values = {v.path: ops.convert_to_numpy(v) for v in model.weights if "seed" not in v.path}
    kernels = {path: value for path, value in values.items() if path.endswith("/kernel")}
    return kernels, {path: values[path] for path in values.keys() - kernels.keys()}


def test_no_two_layers_share_a_draw(weights):
    # One seed gives one sequence whatever the shape, and multiples of it for other deviations.
    starts = {path: kernel.ravel()[:8] / kernel.ravel()[0] for path, kernel in weights[0].items()}
    for (path, start), (other, other_start) in itertools.combinations(starts.items(), 2):
        assert not np.allclose(start, other_start, rtol=1e-3), (path, other)


def test_each_kernel_has_its_distribution(weights):
    used = set()
    for path, kernel in weights[0].items():
        ((pattern, (shape, deviation)),) = (
            item for item in KERNELS.items() if re.fullmatch(f"{item[0]}/kernel", path)
        )
        used.add(pattern)
        values = kernel.ravel() / deviation(*kernel.shape)
        # Five standard errors of each statistic; kernels here have 96 elements and more.
        count = values.size
        kurtosis = {"normal": 3, "uniform": 1.8}[shape]
        assert abs(values.mean()) <= 5 / math.sqrt(count), path
        assert abs((values**2).mean() - 1) <= 5 * math.sqrt((kurtosis - 1) / count), path
        largest = np.abs(values).max()
        if shape == "uniform":
            assert largest <= math.sqrt(3) * (1 + 1e-6), path
        elif count >= 4000:  # neither uniform nor cut off at two deviations
            assert largest > 2.5, path
    assert used == set(KERNELS)


def test_biases_and_norms_start_neutral(weights):
    for path, value in weights[1].items():
        assert (value == CONSTANTS[path.rsplit("/", 1)[-1]]).all(), path
