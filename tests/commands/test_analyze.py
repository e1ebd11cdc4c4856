"""The command `analyze`."""

import json

import pytest
from command_line import TINY, run_here


def analyze(monkeypatch, *arguments):
    return run_here(monkeypatch, "tf_panoptic_fpn", "analyze", *arguments)


def test_costs_of_a_configuration(monkeypatch, capsys, tmp_path):
    file = tmp_path / "costs.json"
    options = [f"--config={TINY}", "--image-size=64,96", f"--json={file}"]
    assert not analyze(monkeypatch, *options)
    stages = json.loads(file.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["stage", *stages]
    total = stages.pop("total")
    for name in ("parameters", "multiply_adds", "activations"):
        assert total[name] == sum(costs[name] for costs in stages.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Either --config or --paper must be given"),
        (["--paper", f"--config={TINY}"], "Either --config or --paper must be given"),
        ([f"--config={TINY}", "--plot=x.png"], "--plot needs --paper"),
        ([f"--config={TINY}", "--image-size=64"], "--image-size must be H,W. Received: '64'"),
    ],
)
def test_arguments_that_break_a_rule(monkeypatch, capsys, arguments, message):
    assert analyze(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
