"""The three Keras backends give the same numbers from the same weights."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from backend_outputs import backend_outputs

from tf_panoptic_fpn import schema

SCRIPT = pathlib.Path(__file__).with_name("backend_outputs.py")


@pytest.fixture(scope="module")
def expected(goldens_dir):
    return backend_outputs(goldens_dir)


@pytest.fixture(scope="module", params=["jax", "torch"])
def received(request, goldens_dir, tmp_path_factory):
    """The outputs of another backend, in a process of its own that has no TensorFlow."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed (pip install .[backends])")
    output = tmp_path_factory.mktemp(request.param) / "outputs.npz"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(goldens_dir), str(output)],
        env={
            **os.environ,
            "KERAS_BACKEND": request.param,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles sooner
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(output))


@pytest.mark.slow
def test_features(expected, received, noise):
    """Within four times the rounding noise of the reference, as each backend sums otherwise."""
    assert set(received) == set(expected)
    reference = {name: name.lower() for name in ("P2", "P3", "P4", "P5", "P6")}
    for name, key in {**reference, schema.SEMANTIC_LOGITS: "sem_stride4"}.items():
        atol = 4 * noise["infer_a"][key]["max_abs_diff"]
        np.testing.assert_allclose(received[name], expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.slow
def test_detections(expected, received, noise):
    """The same in the same order, within four times the rounding noise of the reference."""
    assert expected[schema.NUM_DETECTIONS].min() > 10
    for name in (schema.NUM_DETECTIONS, schema.CLASSES):
        np.testing.assert_array_equal(received[name], expected[name], err_msg=name)
    valid = expected[schema.CLASSES] >= 0
    for name in (schema.BOXES, schema.SCORES, schema.MASK_PROBS):
        atol = 4 * noise["infer_a"][f"det_{name}_0"]["max_abs_diff"]
        values = received[name][valid], expected[name][valid]
        np.testing.assert_allclose(*values, rtol=0, atol=atol, err_msg=name)


@pytest.mark.slow
def test_panoptic_map(expected, received):
    assert expected["merged/num_segments"] > 1
    for name in ("num_segments", "category_ids", "is_thing"):
        np.testing.assert_array_equal(received[f"merged/{name}"], expected[f"merged/{name}"])
    different = received["merged/panoptic_map"] != expected["merged/panoptic_map"]
    assert different.sum() <= 10


@pytest.mark.slow
def test_losses(expected, received):
    """Sampled with the same seeds, so that the losses are of the same anchors and rois."""
    names = [name for name in expected if name.startswith("loss/")]
    assert len(names) == 6
    for name in names:
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_backbones(expected, received):
    """A grouped network, DINOv2, MiT, Swin, and a pyramid of separable convolutions."""
    names = [name for name in expected if name.startswith("backbone/")]
    assert len(names) == 4 * 4 + 5
    for name in names:
        atol = 1e-4 * np.abs(expected[name]).max()
        np.testing.assert_allclose(received[name], expected[name], atol=atol, err_msg=name)


@pytest.mark.slow
def test_cascade(expected, received):
    """Deformable convolution, its gradient, and each stage's boxes, logits and losses."""
    names = [name for name in expected if name.startswith("cascade/")]
    assert len(names) == 10
    for name in names:
        atol = 1e-4 * np.abs(expected[name]).max()
        np.testing.assert_allclose(received[name], expected[name], atol=atol, err_msg=name)
