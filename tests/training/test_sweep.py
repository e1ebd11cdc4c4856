"""A study: its grid, its runs, what fails and what goes on, and its table."""

import csv
import json

import pytest
from command_line import TINY, run_here

from tf_panoptic_fpn.commands import sweep as command
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.evaluation.study import (
    format_study,
    study_chart,
    summarize_study,
    write_study,
)
from tf_panoptic_fpn.training.sweep import (
    check_same_study,
    do_runs,
    log_of,
    parse_grid,
    plan_runs,
    settings_of,
)

pytestmark = pytest.mark.usefixtures("short_backbones")

GRID = {"model.lambda_semantic": [0, 0.25], "model.backbone": ["resnet18", "resnet34"]}


def test_a_grid_is_read_as_yaml():
    texts = ["a.b=0,0.1,1e-4", "c=x,y z,true", "d.e=[1, 2],[3]"]
    assert parse_grid(texts) == {
        "a.b": [0, 0.1, "1e-4"],  # which a field of numbers takes for one
        "c": ["x", "y z", True],
        "d.e": [[1, 2], [3]],
    }
    assert parse_grid([]) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a.b"], r"--grid takes a\.b=VALUE,VALUE\. Received: 'a\.b'"),
        (["a.b="], "--grid takes"),
        (["a=[1,2"], "--grid a: not YAML"),
        (["a=1,2", "a=3"], "--grid a: is given twice"),
        (["a=1,2,1"], "--grid a: has a value twice: 1"),
    ],
)
def test_grids_that_are_none(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_grid(texts)


def test_the_runs_of_a_study(tmp_path):
    runs = plan_runs(TINY, ["train.seed=5"], GRID, 3, tmp_path)
    assert len(runs) == 12
    names = [run.name for run in runs[:4]]
    first = "model.lambda_semantic=0,model.backbone=resnet18"
    assert names[:3] == [f"{first}/seed=5", f"{first}/seed=6", f"{first}/seed=7"]
    assert names[3] == "model.lambda_semantic=0,model.backbone=resnet34/seed=5"
    config = load_config(TINY, runs[-1].overrides)
    assert (config.model.lambda_semantic, config.model.backbone) == (0.25, "resnet34")
    assert config.train.seed == 7
    assert [len(folders) for _, folders in settings_of(runs)] == [3] * 4
    assert [run.name for run in plan_runs(TINY, [], {}, 2, tmp_path)] == [
        "base/seed=0",
        "base/seed=1",
    ]


@pytest.mark.parametrize(
    ("grid", "trials", "message"),
    [
        ({"model.lambda_semantic": [0, -1]}, 1, r"`model\.lambda_semantic` must be .*-1"),
        ({"model.no": [1]}, 1, r"model\.no"),
        ({"train.seed": [1, 2]}, 2, r"the grid gives train\.seed"),
        ({}, 0, "--trials must be 1 or above"),
        ({"data.source": ["a/b", "a b"]}, 1, r"two settings would have the folder .*a_b"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(tmp_path, grid, trials, message):
    with pytest.raises(ConfigError, match=message):
        plan_runs(TINY, [], grid, trials, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_study_is_not_mixed_in(tmp_path):
    base = load_config(TINY)
    keys = ["model.lambda_semantic"]
    check_same_study(base, keys, tmp_path)
    check_same_study(load_config(TINY, ["model.lambda_semantic=3.0"]), keys, tmp_path)
    with pytest.raises(ConfigError, match=r"a study with `train\.steps` = 6; .*Received: 7"):
        check_same_study(load_config(TINY, ["train.steps=7"]), keys, tmp_path)


def results(quality, ap=0.5):
    groups = {name: {"PQ": quality, "n": 2} for name in ("All", "Things", "Stuff")}
    return {"panoptic": groups, "box_ap": {"AP": ap}}


class Runner:
    """Stands for training: writes results, or fails as it is told by name."""

    def __init__(self, failing=()):
        self.started, self.failing = [], dict(failing)

    def __call__(self, run):
        self.started.append(run.name)
        run.workdir.create()
        status, text = self.failing.get(run.name, (0, None))
        if text is None:
            weight = run.values.get("model.lambda_semantic", 0)
            tree = results(0.4 + weight + 0.01 * run.seed, 0.5 - weight)
            run.workdir.results.write_text(json.dumps(tree))
        else:
            with open(log_of(run), "a") as log:
                log.write(text)
        return status


@pytest.fixture
def runs(tmp_path):
    return plan_runs(TINY, [], {"model.lambda_semantic": [0, 0.1, 0.25]}, 3, tmp_path)


def test_a_failing_run_loses_no_other_and_is_tried_again(runs):
    failing = {
        runs[1].name: (2, "step 3\nerror: no gradient was finite\nlast line\n"),
        runs[4].name: (-9, ""),
        runs[8].name: (1, "Traceback\nValueError: odd\n\n"),
    }
    lines, first = [], Runner(failing)
    failed = do_runs(runs, first, lines.append)
    assert first.started == [run.name for run in runs]
    assert failed[runs[1].name] == "no gradient was finite"
    assert failed[runs[4].name].startswith("ended by signal 9 (SIGKILL; often")
    assert failed[runs[8].name] == "ValueError: odd"
    assert sum("failed" in line for line in lines) == 3
    # The error of the first try is not taken for that of the second.
    second = Runner({runs[1].name: (1, "no line of error\n")})
    assert do_runs(runs, second, lines.append) == {runs[1].name: "no line of error"}
    assert second.started == [runs[1].name, runs[4].name, runs[8].name]
    assert do_runs(runs, Runner(), lines.append) == {}
    assert do_runs(runs, Runner({runs[0].name: (1, "")}), lines.append) == {}


def test_the_table_has_medians(runs, tmp_path):
    do_runs(runs[:8], Runner({runs[4].name: (1, "x")}), lambda line: None)
    rows = summarize_study(settings_of(runs))
    header, *lines = (line.split() for line in format_study(rows).splitlines())
    assert " ".join(header) == "model.lambda_semantic trials PQ PQ things PQ stuff Box AP"
    assert lines[0] == ["0", "3", "41.0", "41.0", "41.0", "50.0"]
    assert lines[1] == ["0.1", "2", "of", "3", *["51.0"] * 3, "40.0"]  # of .50 and .52
    assert lines[2] == ["0.25", "2", "of", "3", *["65.5"] * 3, "25.0"]
    write_study(tmp_path, rows)
    with open(tmp_path / "sweep.csv", newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert table[2] == ["0.1", "2 of 3", "51.0", "51.0", "51.0", "40.0"]
    tree = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    figure = tree[0]["figures"]["panoptic"]["All"]["PQ"]
    assert figure["values"] == pytest.approx([0.4, 0.41, 0.42])
    picture = (tmp_path / "sweep.svg").read_text(encoding="utf-8")
    assert picture.count("<path") == 2 and "Box AP, median" in picture
    assert picture.count('r="1.8"') == 2 * 7


def test_the_chart_of_two_keys_and_of_names(tmp_path):
    runs = plan_runs(TINY, [], GRID, 1, tmp_path)
    assert study_chart(summarize_study(settings_of(runs))) is None
    assert format_study(summarize_study(settings_of(runs))).splitlines()[1].split()[2:] == [
        *("0", "of", "1")
    ]
    do_runs(runs, Runner(), lambda line: None)
    chart = study_chart(summarize_study(settings_of(runs)))
    assert [line["name"] for line in chart["lines"]] == [
        "model.backbone = resnet18",
        "model.backbone = resnet34",
    ]
    swapped = dict(reversed(GRID.items()))
    runs = plan_runs(TINY, [], swapped, 1, tmp_path / "swapped")
    do_runs(runs, Runner(), lambda line: None)
    chart = study_chart(summarize_study(settings_of(runs)))
    assert [text for _, text in chart["x_ticks"]] == ["resnet18", "resnet34"]
    assert len(chart["lines"]) == len(chart["dots"]) == 2


def test_the_command(tmp_path, monkeypatch, capsys):
    runner = Runner({"model.lambda_semantic=0.1/seed=1": (2, "error: it broke\n")})
    monkeypatch.setattr(command, "run_in_process", lambda config, run: runner(run))
    arguments = [
        *("sweep", f"--config={TINY}", f"--workdir={tmp_path / 'study'}", "--trials=2"),
        "--grid=model.lambda_semantic=0,0.1",
    ]
    assert run_here(monkeypatch, "tf_panoptic_fpn", *arguments) == 2
    out, err = capsys.readouterr()
    assert "4/4 model.lambda_semantic=0.1/seed=1: failed: it broke" in out
    assert "0.1  1 of 2" in out
    assert err.startswith("error: 1 of 4 runs failed, the first of them model.lambda_semantic=0.1")
    runner.failing.clear()
    assert run_here(monkeypatch, "tf_panoptic_fpn", *arguments) == 0
    assert runner.started[4:] == ["model.lambda_semantic=0.1/seed=1"]
    assert "1/4 model.lambda_semantic=0/seed=0: is there" in capsys.readouterr().out
    assert (tmp_path / "study/sweep.svg").exists()


@pytest.mark.slow
def test_a_study_of_real_runs(tmp_path, monkeypatch, capsys):
    """One setting trains, the other cannot, in processes of their own."""
    missing = tmp_path / "none.npz"
    arguments = [
        *("sweep", f"--config={TINY}", f"--workdir={tmp_path / 'study'}"),
        *("--set=train.steps=2", f"--grid=train.initial_weights='',{missing}"),
    ]
    assert run_here(monkeypatch, "tf_panoptic_fpn", *arguments) == 2
    err = capsys.readouterr().err
    assert "none.npz: no such file (`train.initial_weights`)" in err
    assert "1 of 2 runs failed" in err
    run = tmp_path / "study" / "train.initial_weights=" / "seed=0"
    assert (run / "model.keras").exists() and (run / "results.json").exists()
    assert "evaluate" in (run / "log.txt").read_text()
