"""Micro-batches, several replicas, XLA: each gives the step of the whole batch."""

import numpy as np
import pytest
import tensorflow as tf
from command_line import run as run_program
from float64 import float64
from small_model import make_batch, make_tiny_model
from test_step import assert_same, run

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.training.gradients import losses_and_gradients


def equal_counts():
    """Four images whose losses are all divided by the same counts.

    Each has more instances than a roi sampler may draw foreground, and every pixel a label.
    """
    batch = make_batch(4, size=(64, 96), num_instances=6)
    assert (batch[schema.SEMANTIC] >= 0).all()
    return batch


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)  # a trace would take ten times as long as the run
    yield
    tf.config.run_functions_eagerly(False)


def test_micro_batches_give_the_gradients_of_the_batch(eagerly):
    batch = {name: tf.constant(value) for name, value in equal_counts().items()}
    with float64():
        model = make_tiny_model()
        whole, parts = (losses_and_gradients(model, 1, accumulate=n)(batch) for n in (1, 4))
    assert whole[0]["total"] > 1
    for name, value in whole[0].items():
        np.testing.assert_allclose(parts[0][name], value, rtol=1e-12, err_msg=name)
    for variable, a, b in zip(model.trainable_variables, whole[1], parts[1], strict=True):
        error = tf.linalg.norm(tf.reshape(a - b, [-1]))
        assert error <= 1e-12 * tf.linalg.norm(tf.reshape(a, [-1])) + 1e-15, variable.path


@pytest.mark.slow
@pytest.mark.parametrize("compare", ["micro_batches_of_replicas", "xla_on_replicas"])
def test_two_replicas_equal_one(compare):
    """In a process of its own: TensorFlow remembers the shapes that other strategies summed."""
    folders = ["tests", "tests/training"]
    program = f"import sys; sys.path[:0] = {folders}; import conftest, test_accumulation; "
    run_program("-c", program + f"test_accumulation.{compare}()")


def micro_batches_of_replicas():
    with float64():
        one = run(["CPU:0"], [equal_counts()])
        two = run(["CPU:0", "CPU:1"], [equal_counts()], accumulate=2)
    assert_same(one, two, 1e-12, norm_tolerance=1e-12, moved=1e-15)


def xla_on_replicas():
    """The replicas' own counts differ."""
    batch = make_batch(2, size=(64, 96))
    batch[schema.GT_CLASSES][1] = -1
    batch[schema.SEMANTIC][0, :40] = schema.IGNORED
    with float64():
        one = run(["CPU:0"], [batch])
        two = run(["CPU:0", "CPU:1"], [batch], jit_compile=True)
    assert_same(one, two, 1e-9, norm_tolerance=1e-9, moved=1e-12)
