"""`fit` and `evaluate` give the same losses and weights on the three Keras backends."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import backend_fit
import numpy as np
import pytest
from docs_commands import ROOT, python_blocks
from keras import ops

pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(backend_fit.__file__)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The weights that TensorFlow starts from, stored, and what it makes of them."""
    model = backend_fit.make_model()
    weights = tmp_path_factory.mktemp("fit") / "weights.npz"
    np.savez(weights, **{v.path: ops.convert_to_numpy(v) for v in model.trainable_variables})
    return weights, backend_fit.fit(model)


def run(backend, *arguments, cwd=None):
    """Runs Python on another backend, in a process of its own."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed (pip install .[backends])")
    environment = {
        "KERAS_BACKEND": backend,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles sooner
        "JAX_NUM_CPU_DEVICES": "2",
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_same_losses_and_weights(backend, expected, tmp_path):
    """JAX splits the batch over two devices."""
    weights, results = expected
    run(backend, SCRIPT, weights, tmp_path / "results.npz")
    received = dict(np.load(tmp_path / "results.npz"))
    assert set(received) == set(results)
    for name, value in results.items():
        # Float32 sums, in each backend's own order: ten times what was seen of the weights, four
        # times the 5e-6 that was seen of a loss where TensorFlow uses oneDNN.
        tolerance = {"atol": 2e-6} if name.startswith("weights/") else {"rtol": 2e-5}
        np.testing.assert_allclose(received[name], value, err_msg=name, **tolerance)
    moved = [name for name in results if name.startswith("weights/")]
    with np.load(weights) as before:
        assert all((before[n.partition("/")[2]] != results[n]).any() for n in moved)


def test_the_page_trains_on_jax(tmp_path):
    """`docs/other_backends.md`, on two devices that the pipeline feeds."""
    (block,) = python_blocks(ROOT / "docs" / "other_backends.md")
    (tmp_path / "my.yaml").write_bytes((ROOT / "tests" / "tiny.yaml").read_bytes())
    (tmp_path / "fit.py").write_text(block, encoding="utf-8")
    run("jax", "fit.py", cwd=tmp_path)
    assert (tmp_path / "runs/mine/model.keras").stat().st_size > 1e5
