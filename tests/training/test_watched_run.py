"""A run with validations, pictures, a best model, a profile and every figure of the log."""

import os

import numpy as np
import pytest
from command_line import TINY, metrics
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.training import loop
from tf_panoptic_fpn.training.lock import only_run
from tf_panoptic_fpn.workdir import Workdir

pytestmark = pytest.mark.usefixtures("short_backbones")

SETTINGS = [
    "train.deterministic=false",  # it would hold for the tests that follow
    "train.steps=4",
    "train.log_every=2",
    "train.profile=[2,3]",
    "evaluate.every=2",
    "evaluate.images=2",
    "evaluate.pictures=1",
    "evaluate.keep_best=semantic.mIoU",
    "optimizer.learning_rate=1e-9",  # the second validation is no better
    "optimizer.warmup_steps=0",
    "evaluate.patience=1",
    "train.steps=8",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("watched"))
    loop.train(load_config(TINY, SETTINGS), workdir.path)
    return workdir


def test_a_validation_has_a_line_of_its_own(workdir):
    lines = metrics(workdir.path)
    assert [(line["step"], "validation" in line) for line in lines] == [
        (2, True),
        (2, False),
        (4, True),
        (4, False),
    ]
    figures = lines[0]["validation"]
    assert {"panoptic.All.PQ", "box_ap.AP", "mask_ap.AP", "semantic.mIoU"} <= set(figures)
    assert figures["images"] == 2 and lines[0]["seconds"] > 0
    assert lines[1]["shares"]["validation"] > 0 and lines[1]["shares"]["data"] > 0
    assert lines[1]["foreground_anchors"] >= 1 and lines[1]["foreground_rois"] >= 1
    assert lines[1]["weight_norm"] > 1 and lines[1]["peak_memory_bytes"] > 1e8


def test_the_run_ends_without_patience_and_keeps_the_best(workdir):
    """8 steps are asked for; the model of step 4 is no better than that of step 2."""
    assert workdir.model.exists() and workdir.best.exists()
    assert find_model(workdir.path).path == workdir.best
    model = workdir.model.stat().st_mtime_ns
    loop.train(load_config(TINY, SETTINGS), workdir.path)
    assert workdir.model.stat().st_mtime_ns == model


def test_pictures_of_the_same_image_each_time(workdir):
    (folder,) = workdir.pictures.iterdir()
    first, second = sorted(folder.iterdir())
    assert [first.name, second.name] == ["step_00000002.png", "step_00000004.png"]
    images = [np.asarray(Image.open(file)) for file in (first, second)]
    assert images[0].shape == images[1].shape
    width = images[0].shape[1] // 2  # the right half is the ground truth
    np.testing.assert_array_equal(images[0][:, -width + 8 :], images[1][:, -width + 8 :])


def test_tensorboard_has_figures_pictures_and_the_profile(workdir):
    events = EventAccumulator(str(workdir.tensorboard), {"images": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    (image,) = tags["images"]
    assert [e.step for e in events.Images(image)] == [2, 4]
    assert {"validation/panoptic.All.PQ", "weight_norm", "shares/data"} <= set(tags["tensors"])
    assert list(workdir.tensorboard.glob("plugins/profile/*/*.xplane.pb"))


def test_a_second_run_is_refused_while_the_first_lives(workdir):
    match = rf"another run .* process {os.getpid()} on "
    with only_run(workdir), pytest.raises(ConfigError, match=match):
        loop.train(load_config(TINY, SETTINGS), workdir.path)
    assert not workdir.lock_holder.exists()
    with only_run(workdir):  # what is left of the lock is not in the way
        pass
