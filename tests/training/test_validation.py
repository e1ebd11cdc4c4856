"""What becomes of the figures of validations; the evaluation itself is replaced by a list."""

import types

import numpy as np
import pytest
import tensorflow as tf
from command_line import TINY, metrics

from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.distribution.workers import Workers
from tf_panoptic_fpn.errors import ConfigError, StoppedBySignalError
from tf_panoptic_fpn.formats.records import ImageRecord, Segment
from tf_panoptic_fpn.training import validation
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.validation import Validation, flat_figures
from tf_panoptic_fpn.workdir import Workdir

pytestmark = pytest.mark.usefixtures("short_backbones")

SETTINGS = ["evaluate.every=2", "evaluate.keep_best=panoptic.All.PQ", "evaluate.patience=2"]


class FakeModel:
    """Writes how often it was saved."""

    saves = 0

    def save(self, file):
        self.saves += 1
        file.write_text(str(self.saves), encoding="utf-8")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a `Validation` of some figures, one each time that it is asked."""
    split = types.SimpleNamespace(
        images=[ImageRecord(1, "1.jpg", "1.jpg", "1.png", 2, 2, (Segment(1, 3),))], categories=None
    )
    monkeypatch.setattr(validation, "load_split", lambda *_: split)
    monkeypatch.setattr(validation, "draw_beside_truth", lambda *_: np.zeros((2, 2, 3), np.uint8))
    monkeypatch.setattr(validation, "Predictor", lambda *_: types.SimpleNamespace())

    def build(qualities, has_panoptic=True):
        split.has_panoptic = has_panoptic
        left = iter(qualities)

        def evaluate(*_, on_image, **__):
            quality = next(left)
            on_image((split.images[0], None, None), None, quality)
            return {"panoptic": {"All": {"PQ": quality}}, "images": 1}

        monkeypatch.setattr(validation, "evaluate", evaluate)
        workdir = Workdir(tmp_path)
        log = MetricsLog(workdir, 0, lambda step: 0.1)
        alone = Workers(tf.distribute.get_strategy())
        config = load_config(TINY, SETTINGS)
        return Validation(config, FakeModel(), RunState(), workdir, log, alone)

    return build


def test_the_best_is_kept_and_patience_counts_from_it(make):
    watched = make([0.2, 0.5, 0.5, 0.4])
    patience = []
    for step in range(1, 9):
        watched.run_if_due(step)
        patience.append(watched.is_out_of_patience)
    assert patience == [False] * 7 + [True]
    assert watched.workdir.best.read_text(encoding="utf-8") == "2"  # neither equal nor worse
    assert watched.state.best.numpy() == 0.5 and watched.state.best_step.numpy() == 4
    lines = metrics(watched.workdir.path)
    assert [(x["step"], x["validation"]["panoptic.All.PQ"]) for x in lines] == [
        (2, 0.2),
        (4, 0.5),
        (6, 0.5),
        (8, 0.4),
    ]


def test_a_step_is_evaluated_once(make):
    watched = make([0.2])
    watched.run_if_due(2)
    watched.run_if_due(2)  # of a run that goes on from here
    watched.run_if_due(0)


def test_a_signal_ends_a_validation_which_is_done_when_the_run_goes_on(make):
    def stop():
        raise StoppedBySignalError(15)

    watched = make([0.2, 0.3])
    watched.check_signals = stop
    watched.run_if_due(2)
    assert watched.state.validated_step.numpy() == 0 and not watched.workdir.best.exists()
    watched.check_signals = lambda: None
    watched.run_if_due(2)
    assert watched.state.validated_step.numpy() == 2 and watched.state.best.numpy() == 0.3


def test_a_best_model_that_cannot_be_written_is_tried_again(make, caplog):
    def full(file):
        raise OSError(28, "No space left on device")

    watched = make([0.5])
    watched.model.save = full
    watched.run_if_due(2)
    assert "best.keras: could not be written; training goes on" in caplog.text
    assert watched.state.best.numpy() == float("-inf")


def test_without_panoptic_ground_truth_there_is_no_such_best(make):
    with pytest.raises(ConfigError, match=r"keep_best` must be another.*'panoptic.All.PQ'"):
        make([0.1], has_panoptic=False)


def test_figures_are_numbers_under_dotted_names():
    results = {
        "panoptic": {"All": {"PQ": 0.5, "n": 3}, "per_class": {"car": {"PQ": 0.5}}},
        "mask_ap": {"AP": 0.25, "APs": None, "precision_recall": {"recall": [0.0]}},
        "absent_classes": ["sky"],
        "images": 2,
    }
    assert flat_figures(results) == {
        "panoptic.All.PQ": 0.5,
        "panoptic.All.n": 3,
        "mask_ap.AP": 0.25,
        "images": 2,
    }
