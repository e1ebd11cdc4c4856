"""A train step of a cascade, compiled by XLA on two replicas, against the plain graph on one."""

import pytest
import test_step
from command_line import run as run_program
from float64 import float64
from small_model import make_batch, make_tiny_cascade

from tf_panoptic_fpn import schema


@pytest.mark.slow
def test_xla_on_two_replicas_equals_one():
    """In a process of its own: TensorFlow remembers the shapes that other strategies summed."""
    folders = ["tests", "tests/training"]
    program = f"import sys; sys.path[:0] = {folders}; import conftest, test_cascade_step; "
    run_program("-c", program + "test_cascade_step.compare()")


def compare():
    """The replicas' own counts differ, in every stage."""
    test_step.make_tiny_model = make_tiny_cascade
    batch = make_batch(2, size=(64, 96))
    batch[schema.GT_CLASSES][1] = -1
    with float64():
        one = test_step.run(["CPU:0"], [batch])
        two = test_step.run(["CPU:0", "CPU:1"], [batch], jit_compile=True)
    assert one[0][0]["box_stage2"] > 0
    test_step.assert_same(one, two, 1e-9, norm_tolerance=1e-9, moved=1e-12)
