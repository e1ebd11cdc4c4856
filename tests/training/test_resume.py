"""Which settings a run may go on with."""

import pytest
from absl import logging
from command_line import TINY

from tf_panoptic_fpn.config import load_config, save_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.training.resume import check_continues
from tf_panoptic_fpn.workdir import Workdir

pytestmark = pytest.mark.usefixtures("short_backbones")


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.checkpoints.mkdir()
    save_config(load_config(TINY), workdir.config)
    return workdir


@pytest.mark.parametrize(
    "override",
    [
        "train.batch_size=4",
        "train.seed=1",
        "train.loss_schedule=alternating",
        "optimizer.momentum=0.8",
        "optimizer.weight_decay=0.5",
        "optimizer.clip_norm=1.0",
        "model.max_detections=3",
    ],
)
def test_what_may_not_change_is_named(workdir, override):
    key, value = override.split("=")
    with pytest.raises(ConfigError, match=rf"a run with `{key}` = .*Received: '?{value}"):
        check_continues(load_config(TINY, [override]), workdir)


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=60",
        "train.replicas=2",
        "train.log_every=2",
        "optimizer.learning_rate=0.002",
        "optimizer.drop_steps=[3]",
        "data.index_cache=elsewhere",
        "merge.stuff_area=1",
    ],
)
def test_what_may_change_is_said(workdir, override, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    check_continues(load_config(TINY, [override]), workdir)
    assert len(lines) == 1 and f"`{override.split('=')[0]}`" in lines[0]


def test_a_new_run_has_nothing_to_go_on_with(tmp_path):
    check_continues(load_config(TINY, ["train.seed=9"]), Workdir(tmp_path))
