"""Models and optimizers in float64."""

import contextlib

import keras


@contextlib.contextmanager
def float64():
    """Whatever is made inside is float64, as after `keras.config.set_floatx("float64")`."""
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
