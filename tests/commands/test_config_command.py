"""The command `config`."""

import pytest
import yaml
from command_line import TINY, run_here

from tf_panoptic_fpn.config import list_recipes


def run_config(monkeypatch, *arguments):
    return run_here(monkeypatch, "tf_panoptic_fpn", "config", *arguments)


def test_list_names_every_recipe(monkeypatch, capsys):
    assert run_config(monkeypatch, "--list") == 0
    assert capsys.readouterr().out.splitlines() == list(list_recipes())


def test_a_configuration_is_printed_whole(monkeypatch, capsys):
    arguments = (f"--config={TINY}", "--set", "train.batch_size=3")
    assert run_config(monkeypatch, *arguments) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["model"]["backbone"] == "resnet18"  # of the file
    assert tree["train"]["batch_size"] == 3  # of the command line
    assert tree["optimizer"]["momentum"] == 0.9  # a default


@pytest.mark.parametrize("arguments", [(), ("--list", f"--config={TINY}")])
def test_one_of_both_is_needed(monkeypatch, capsys, arguments):
    assert run_config(monkeypatch, *arguments) == 2
    assert "Either --config or --list must be given" in capsys.readouterr().err
