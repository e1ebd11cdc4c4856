"""The loop with a model of one weight, to which each step adds the number of its batch."""

import pathlib
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from command_line import TINY, metrics

from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.distribution.workers import Workers
from tf_panoptic_fpn.errors import DataError, StoppedBySignalError, TrainingError, exit_on_error
from tf_panoptic_fpn.training.checkpoint import Checkpoints
from tf_panoptic_fpn.training.loop import run_steps
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.save_model import save_model
from tf_panoptic_fpn.training.watch import Watch
from tf_panoptic_fpn.workdir import Workdir

pytestmark = pytest.mark.usefixtures("short_backbones")

SETTINGS = ["train.steps=6", "train.checkpoint_every=4", "train.log_every=2"]


class Run:
    """A run in a folder, begun or gone on with; `events` are functions called in their steps."""

    def __init__(self, folder, *settings, events=None):
        config = load_config(TINY, [*SETTINGS, *settings])
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.model = keras.Sequential([keras.Input((1,)), layer])
        schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 1.0)  # 1 at each step
        self.optimizer = SGD(schedule, momentum=0.0)
        self.optimizer.build(self.model.trainable_variables)
        self.events = events or {}
        workdir = Workdir(folder)
        self.state = RunState()
        checkpoints = Checkpoints(self.model, self.optimizer, workdir.checkpoints, state=self.state)
        self.start = checkpoints.restore()
        self.settings = config.train
        alone = Workers(tf.distribute.get_strategy())
        run = (config, self.model, self.optimizer, self.state, checkpoints, workdir, self.start)
        self.watch = Watch(*run, alone)

    def go(self):
        batches = self.batches()
        with self.watch.begun():
            run_steps(self.settings, self.start, batches, self.train_step, self.watch)
        return self.weight

    @property
    def weight(self):
        return float(self.model.trainable_variables[0].numpy()[0, 0])

    def batches(self):
        for step in range(self.start + 1, self.settings.steps + 1):
            event = self.events.get(step)
            if event == "gone":
                self.watch.problems.stop(DataError("the folder is gone"))
                raise tf.errors.NotFoundError(None, None, "no such file")
            yield {"images": tf.fill([1], np.nan if event == "nan" else float(step))}

    def train_step(self, batch):
        step = batch["images"].numpy()[0]
        is_finite = float(np.isfinite(step))
        if is_finite:
            self.optimizer.apply([-np.full((1, 1), step, np.float32)], self.model.variables)
            event = self.events.get(int(step))
            if event in (signal.SIGTERM, signal.SIGUSR1):
                signal.getsignal(event)(event, None)  # what the signal calls
        return {"total": step, "gradient_norm": step, "is_finite": is_finite}


def steps_of(folder):
    return [line["step"] for line in metrics(folder)]


def saved(folder):
    return sorted(int(p.stem[5:]) for p in (folder / "checkpoints").glob("*.index"))


def test_all_steps_are_done_logged_and_saved(tmp_path):
    assert Run(tmp_path).go() == 1 + 2 + 3 + 4 + 5 + 6
    assert steps_of(tmp_path) == [2, 4, 6] and saved(tmp_path) == [4, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_goes_on(tmp_path, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(StoppedBySignalError, match=f"stopped by {number.name}") as error:
        Run(tmp_path, events={3: number}).go()
    assert saved(tmp_path) == [3] and steps_of(tmp_path) == [2, 3]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    run = Run(tmp_path)
    assert run.start == 3 and run.weight == 6
    assert run.go() == 21

    def stopped():
        raise error.value

    with pytest.raises(SystemExit) as end:
        exit_on_error(stopped)
    assert end.value.code == {signal.SIGTERM: 143, signal.SIGUSR1: 138}[number]


def test_data_that_is_gone_keeps_what_is_done(tmp_path):
    with pytest.raises(DataError, match="the folder is gone"):
        Run(tmp_path, events={4: "gone"}).go()
    assert saved(tmp_path) == [3]
    assert Run(tmp_path).go() == 21


def test_nan_images_are_skipped_counted_and_end_the_run(tmp_path):
    events = dict.fromkeys((2, 4, 5), "nan")
    run = Run(tmp_path, "train.max_skipped=3", events=events)
    assert run.go() == 1 + 3 + 6
    assert [line["skipped_steps"] for line in metrics(tmp_path)] == [1, 1, 1]
    with pytest.raises(TrainingError, match=r"in the 2 steps up to 5: .*batch_of_step_5\.npz"):
        Run(tmp_path / "short", "train.max_skipped=2", events=events).go()
    assert np.isnan(np.load(tmp_path / "short" / "batch_of_step_5.npz")["images"]).all()
    assert saved(tmp_path / "short") == [4, 6]


def test_a_full_disk_stops_no_step(tmp_path, monkeypatch):
    def full(prefix, **_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    run = Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tf.raw_ops, "SaveV2", full)
        if pathlib.Path("/dev/full").exists():
            run.watch.log.path = pathlib.Path("/dev/full")
        assert run.go() == 21
    assert sum("could not be written" in line for line in lines) == 2  # steps 4 and 6
    assert not saved(tmp_path)
    if pathlib.Path("/dev/full").exists():
        assert sum("the metrics cannot be written" in line for line in lines) == 1


def test_a_model_that_has_no_place_is_one_line(tmp_path):
    model = types.SimpleNamespace(save=lambda file: file.write_text("model", encoding="utf-8"))
    with pytest.raises(TrainingError, match=r"absent/model.keras: the model cannot be written: No"):
        save_model(model, tmp_path / "absent" / "model.keras")
    save_model(model, tmp_path / "model.keras")
    assert (tmp_path / "model.keras").read_text(encoding="utf-8") == "model"
