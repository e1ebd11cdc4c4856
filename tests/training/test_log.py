"""The log of a run, by hand."""

import itertools
import json
import time

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from tf_panoptic_fpn.training import log as log_module
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.schedule import WarmupStepDecay
from tf_panoptic_fpn.workdir import Workdir


def row(total, is_finite=1.0, **losses):
    return {"total": total, **losses, "gradient_norm": 2 * total, "is_finite": is_finite}


def write_four_steps(workdir, start=0):
    """Logs steps `start + 1` to 4, two at a time."""
    log = MetricsLog(workdir, start, WarmupStepDecay(0.1, drop_steps=(2,)))
    for step in range(start + 2, 5, 2):
        log.write(step, [row(step - 1.0, mask=1.0), row(float(step), mask=2.0)], 8, 3)
    log.close()


def read_lines(workdir):
    return [json.loads(line) for line in workdir.metrics.read_text(encoding="utf-8").splitlines()]


def read_scalars(workdir):
    events = EventAccumulator(str(workdir.tensorboard)).Reload()
    tags = events.Tags()["tensors"]
    return {tag: [(e.step, float(e.tensor_proto.float_val[0])) for e in events.Tensors(tag)]
            for tag in tags}  # fmt: skip


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    clock = itertools.count(100.0, 0.5)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    return Workdir(tmp_path)


def test_a_line_has_the_means_and_the_rate_of_its_own_step(workdir):
    write_four_steps(workdir)
    first, second = read_lines(workdir)
    assert first["loss"] == {"total": 1.5, "mask": 1.5}
    assert first["gradient_norm"] == 3.0
    assert first["images_per_second"] == 2 * 8 / 0.5
    assert first["damaged_images"] == 3
    # The rate drops after two steps: the second step still has the first rate.
    assert [first["learning_rate"], second["learning_rate"]] == pytest.approx([0.1, 0.01])


def test_multiply_adds_are_counted_once_a_run_has_lasted(workdir, monkeypatch):
    """Half a second a line by the clock: the second comes after `COUNT_AFTER`."""
    monkeypatch.setattr(log_module, "COUNT_AFTER", 1)
    counts = []

    def count():
        counts.append(1)
        return 3.0, 100.0

    log = MetricsLog(workdir, 0, lambda step: 0.1, count_costs=count)
    for step in (2, 4, 6):
        log.write(step, [{**row(1.0), "canvas_pixels": 20.0}] * 2, 8, 0)
    log.close()
    rate = 2 / 0.5 * (20 * 3 + 8 * 100)
    assert [line["multiply_adds_per_second"] for line in read_lines(workdir)] == [None, rate, rate]
    assert len(counts) == 1


def test_tensorboard_has_every_scalar(workdir):
    write_four_steps(workdir)
    scalars = read_scalars(workdir)
    assert scalars["loss/total"] == [(2, 1.5), (4, 3.5)]
    assert scalars["loss/mask"] == [(2, 1.5), (4, 1.5)]
    assert scalars["gradient_norm"] == [(2, 3.0), (4, 7.0)]
    assert scalars["images_per_second"] == [(2, 32.0), (4, 32.0)]
    assert [step for step, _ in scalars["learning_rate"]] == [2, 4]


def test_what_a_crashed_run_logged_ahead_is_dropped(workdir):
    write_four_steps(workdir)
    with workdir.metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 1, "lo')  # cut short
    write_four_steps(workdir, start=2)
    assert [line["step"] for line in read_lines(workdir)] == [2, 4]
    assert [step for step, _ in read_scalars(workdir)["loss/total"]] == [2, 4]


def test_steps_that_are_not_finite_are_counted_and_left_out(workdir):
    log = MetricsLog(workdir, 0, WarmupStepDecay(0.1))
    log.write(2, [row(float("nan"), is_finite=0.0), row(3.0)], 1, 0)
    log.write(3, [row(float("inf"), is_finite=0.0)], 1, 0)
    log.close()
    line, empty = read_lines(workdir)
    assert line["loss"]["total"] == 3.0 and line["skipped_steps"] == 1
    assert empty["loss"] == {} and empty["gradient_norm"] is None and empty["skipped_steps"] == 1
    assert read_scalars(workdir)["loss/total"] == [(2, 3.0)]


def test_alternating_losses_are_averaged_over_their_own_steps(workdir):
    log = MetricsLog(workdir, 0, WarmupStepDecay(0.1))
    log.write(2, [row(1.0, mask=4.0), row(3.0, semantic=5.0)], 1, 0)
    log.close()
    assert read_lines(workdir)[0]["loss"] == {"total": 2.0, "mask": 4.0, "semantic": 5.0}
