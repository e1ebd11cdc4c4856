"""`~` and `$VARIABLE` in a path."""

import pytest

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.paths import expand, expand_arguments
from tf_panoptic_fpn.workdir import Workdir


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "~/data")
    monkeypatch.delenv("ABSENT", raising=False)


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~/a", "{home}/a"),
        ("$DATA/a", "{home}/data/a"),
        ("${DATA}/a", "{home}/data/a"),
        ("a/$ABSENT", "a/$ABSENT"),
        ("a/~b", "a/~b"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("", ""),
    ],
)
def test_expand(path, expanded, tmp_path):
    assert expand(path) == expanded.format(home=tmp_path)


def test_every_path_of_a_configuration(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "data: {root: $DATA, index_cache: ~/b, train: {images: ~/c, instances_json: ~/d}}"
    )
    config = load_config("~/run.yaml", ["train.initial_weights=~/e", "data.train.records=~/f"])
    assert config.data.root == f"{tmp_path}/data"
    assert config.data.index_cache == f"{tmp_path}/b"
    paths = {"images": tmp_path / "c", "instances_json": tmp_path / "d"}
    assert config.data.train.paths(config.data.root) == paths
    assert config.train.initial_weights == f"{tmp_path}/e"
    assert config.data.train.records == f"{tmp_path}/f"


def test_every_path_of_a_command(tmp_path):
    given = ["predict", "--output=~/a", "--set", "data.root=~/b", "$DATA/*.jpg", "-x", "--a=b=~/c"]
    expected = ["predict", f"--output={tmp_path}/a", "--set", "data.root=~/b"]
    expected += [f"{tmp_path}/data/*.jpg", "-x", "--a=b=~/c"]
    assert expand_arguments(given) == expected
    assert Workdir("~/run").path == tmp_path / "run"
