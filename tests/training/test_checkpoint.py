"""Checkpoints: how many are kept, and what a damaged one costs."""

import keras
import numpy as np
import pytest
from absl import logging

from tf_panoptic_fpn.errors import TrainingError
from tf_panoptic_fpn.training.checkpoint import KEPT, Checkpoints
from tf_panoptic_fpn.training.optimizer import SGD


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
