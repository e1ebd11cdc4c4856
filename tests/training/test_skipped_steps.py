"""Steps without finite gradients: counted in a row, and what the run leaves when it stops."""

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.errors import TrainingError
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.skipped_steps import SkippedSteps
from tf_panoptic_fpn.workdir import Workdir


def add_steps(skipped, finite, first=1):
    """Adds a step for each entry; the batch holds the step's number."""
    for step, is_finite in enumerate(finite, first):
        skipped.add(step, {"images": tf.fill([1, 2], float(step))}, {"is_finite": is_finite})


def test_the_run_stops_after_so_many_in_a_row_and_writes_the_last_batch(tmp_path):
    state = RunState()
    skipped = SkippedSteps(state, 3, Workdir(tmp_path))
    add_steps(skipped, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    file = tmp_path / "batch_of_step_6.npz"
    with pytest.raises(TrainingError, match=f"in the 3 steps up to 6: .* batch is in {file}"):
        skipped.look()
    np.testing.assert_array_equal(np.load(file)["images"], [[6.0, 6.0]])


def test_the_count_goes_on_in_a_resumed_run(tmp_path):
    state = RunState()
    add_steps(SkippedSteps(state, 3, Workdir(tmp_path)), [1.0, 0.0, 0.0, 0.0])
    assert state.skipped_in_a_row.numpy() == 2  # the last one is not looked at yet
    with pytest.raises(TrainingError, match="in the 3 steps up to 4"):
        add_steps(SkippedSteps(state, 3, Workdir(tmp_path)), [0.0, 1.0], first=4)


def test_a_batch_that_cannot_be_written_is_no_other_error(tmp_path):
    skipped = SkippedSteps(RunState(), 1, Workdir(tmp_path / "absent"))
    with pytest.raises(TrainingError, match="the last batch could not be written"):
        add_steps(skipped, [0.0, 1.0])


def test_the_replicas_of_a_batch_are_put_together(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    values = [tf.ones([1, 4]), tf.zeros([1, 4])]
    boxes = [tf.ones([1, 2]), tf.ones([1, 3])]
    batch = {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, parts=parts: parts[context.replica_id_in_sync_group]
        )
        for name, parts in (("images", values), ("boxes", boxes))
    }
    skipped = SkippedSteps(RunState(), 1, Workdir(tmp_path))
    skipped.add(1, batch, {"is_finite": 0.0})
    with pytest.raises(TrainingError):
        skipped.look()
    written = np.load(tmp_path / "batch_of_step_1.npz")
    np.testing.assert_array_equal(written["images"], [[1.0] * 4, [0.0] * 4])
    assert written["boxes_0"].shape == (1, 2) and written["boxes_1"].shape == (1, 3)
