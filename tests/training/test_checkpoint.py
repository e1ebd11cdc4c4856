"""Checkpoints: how many are kept, and what a damaged one costs."""

import pathlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.errors import TrainingError
from tf_panoptic_fpn.training.checkpoint import KEPT, Checkpoints
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.training.run_state import RunState


def make_checkpoints(folder):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    optimizer = SGD(learning_rate=1.0, momentum=0.0)
    optimizer.build(model.trainable_variables)
    return Checkpoints(model, optimizer, folder), model, optimizer


def train(checkpoints, model, optimizer, steps):
    """Each step adds 1 to the only weight."""
    for step in range(1, steps + 1):
        optimizer.apply([-np.ones((1, 1), np.float32)], model.trainable_variables)
        checkpoints.save(step)
    checkpoints.close()


@pytest.fixture
def folder(tmp_path):
    train(*make_checkpoints(tmp_path / "checkpoints"), steps=5)
    return tmp_path / "checkpoints"


def restored(folder):
    checkpoints, model, _ = make_checkpoints(folder)
    return checkpoints.restore(), float(model.trainable_variables[0].numpy()[0, 0])


def test_the_last_few_are_kept_and_the_newest_is_restored(folder):
    assert KEPT == 3
    assert sorted(p.name for p in folder.glob("*.index")) == [f"ckpt-{i}.index" for i in (3, 4, 5)]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "ckpt-5")
    assert restored(folder) == (5, 5.0)


def test_without_any_a_run_begins(tmp_path):
    assert restored(tmp_path / "none") == (0, 0.0)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b"")], ids=["cut", "empty"])
def test_a_damaged_one_falls_back_to_the_one_before(folder, ending, damage, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    damage(folder / f"ckpt-5.{ending}")
    assert restored(folder) == (4, 4.0)
    assert len(lines) == 1 and "ckpt-5" in lines[0] and "going on from step 4" in lines[0]


@pytest.mark.parametrize("text", ["", 'model_checkpoint_path: "ckp'])
def test_the_list_of_checkpoints_may_be_damaged(folder, text):
    (folder / "checkpoint").write_text(text, encoding="utf-8")
    assert restored(folder) == (5, 5.0)


def test_a_missing_part_falls_back(folder):
    (folder / "ckpt-5.data-00000-of-00001").unlink()
    assert restored(folder) == (4, 4.0)


def test_all_damaged_is_an_error(folder):
    for path in folder.glob("*.index"):
        cut(path)
    with pytest.raises(TrainingError, match=r"ckpt-5: cannot be restored: .* \(nor can 2 older"):
        restored(folder)


def test_what_is_written_is_of_the_step_that_was_saved(tmp_path, monkeypatch):
    """The writer waits until the weight has changed three times more."""
    may_write = threading.Event()
    write = Checkpoints._write

    def late(self, step, values):
        assert may_write.wait(10)
        write(self, step, values)

    monkeypatch.setattr(Checkpoints, "_write", late)
    checkpoints, model, optimizer = make_checkpoints(tmp_path)
    gradient = np.full((1, 1), -1, np.float32)
    for step in range(1, 5):
        optimizer.apply([gradient], model.trainable_variables)
        if step == 1:
            checkpoints.save(1)
    may_write.set()
    checkpoints.close()
    assert restored(tmp_path) == (1, 1.0)


def test_what_cannot_be_written_is_said_and_the_last_good_one_stays(folder, monkeypatch):
    def full(prefix, **_):
        pathlib.Path(f"{prefix}.data-00000-of-00001.tempstate1").write_text("")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    monkeypatch.setattr(tf.raw_ops, "SaveV2", full)
    checkpoints, _, _ = make_checkpoints(folder)
    checkpoints.save(9)
    checkpoints.close()
    assert len(lines) == 1 and "ckpt-9" in lines[0] and "No space left" in lines[0]
    assert not list(folder.glob("ckpt-9*"))
    assert restored(folder) == (5, 5.0)


def test_pieces_of_a_killed_writer_are_deleted(folder):
    (folder / "ckpt-7.data-00000-of-00001.tempstate12").write_text("half")
    (folder / "ckpt-of-mine.txt").write_text("not ours")
    checkpoints, _, _ = make_checkpoints(folder)
    checkpoints.save(6)
    checkpoints.close()
    names = {p.name for p in folder.iterdir()}
    assert names == {"checkpoint", "ckpt-of-mine.txt"} | {
        f"ckpt-{i}.{ending}" for i in (4, 5, 6) for ending in ("index", "data-00000-of-00001")
    }


def test_files_of_tensorflow_itself_are_restored(tmp_path):
    """Version 0.2 wrote them."""
    _, model, optimizer = make_checkpoints(tmp_path)
    optimizer.apply([np.full((1, 1), -1, np.float32)], model.trainable_variables)
    tf.train.Checkpoint(model=model, optimizer=optimizer).write(str(tmp_path / "ckpt-1"))
    assert restored(tmp_path) == (1, 1.0)


def test_what_else_decides_the_future_is_in_them(tmp_path):
    state = RunState()
    state.skipped_in_a_row.assign(7)
    _, model, optimizer = make_checkpoints(tmp_path)
    checkpoints = Checkpoints(model, optimizer, tmp_path, state=state)
    checkpoints.save(1)
    checkpoints.close()
    fresh = RunState()
    Checkpoints(model, optimizer, tmp_path, state=fresh).restore()
    assert fresh.skipped_in_a_row.numpy() == 7
