"""Fixtures of the tests of `ops`."""

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def units(goldens_dir):
    """detectron2's numbers for single operations; its boxes are xyxy, its maps NCHW."""
    return dict(np.load(goldens_dir / "units.npz"))


@pytest.fixture(scope="session")
def compiled():
    """Function that compiles another with XLA; on PyTorch it leaves it as it is."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return lambda function: tf.function(function, jit_compile=True, autograph=False)
    if backend == "jax":
        import jax

        return jax.jit
    return lambda function: function


@pytest.fixture(scope="session")
def tf():
    """TensorFlow, for tests of what only its backend has."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("of the TensorFlow backend only")
    import tensorflow

    return tensorflow
