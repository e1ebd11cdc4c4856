"""How the commands start: at once, quietly, and without the frameworks that they do not need."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from command_line import ROOT, run

from tf_panoptic_fpn.__main__ import COMMANDS

HELP = """
import sys
from tf_panoptic_fpn.__main__ import main
sys.argv[1:] = {arguments!r}
try:
    main({command!r})
finally:
    loaded = {{"tensorflow", "keras"}} & set(sys.modules)
    assert not loaded, loaded
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_framework(command):
    done = run("-c", HELP.format(arguments=[command, "--help"], command=None))
    assert done.stdout.startswith(f"usage: tf-panoptic-fpn {command}")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "program", ["train.py", "export/export_saved_model.py", "export/export_onnx.py"]
)
def test_help_of_the_programs(program):
    done = run(program, "--help")
    assert done.stdout.startswith(f"usage: {pathlib.Path(program).name}")
    assert "--set a.b=value" in done.stdout


def test_help_of_all_commands():
    done = run("-m", "tf_panoptic_fpn", "--help")
    assert all(f"    {command}" in done.stdout for command in COMMANDS)


FIXTURE = "metric_fixtures/pq_single"


@pytest.fixture
def panoptic_files(samples):
    folder = samples / FIXTURE
    return [f"--{of}-json={folder / of}.json" for of in ("gt", "pred")]


def test_a_command_on_files_needs_no_framework(panoptic_files):
    arguments = ["panoptic-quality", *panoptic_files]
    done = run("-c", HELP.format(arguments=arguments, command=None))
    assert "All" in done.stdout


def test_modules_of_the_commands_on_files_need_no_framework():
    """What they import when they run, too."""
    program = """
import ast, importlib, pathlib, sys
import tf_panoptic_fpn.commands
folder = pathlib.Path(tf_panoptic_fpn.commands.__file__).parent
for name in sys.argv[1:]:
    tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            importlib.import_module(node.module)
loaded = {"tensorflow", "keras"} & set(sys.modules)
assert not loaded, loaded
"""
    names = ("panoptic_quality", "instance_ap", "semantic_iou", "cityscapes_ap", "cityscapes_iou")
    run("-c", program, *names, "convert_cityscapes", "convert_data", "validate_data")


def test_output_that_nobody_reads_gives_no_traceback(panoptic_files, tmp_path):
    figures = tmp_path / "figures.json"
    arguments = ["panoptic-quality", *panoptic_files, f"--json={figures}"]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tf_panoptic_fpn", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert json.loads(figures.read_text(encoding="utf-8"))["All"]["n"] == 2


def test_tensorflow_is_imported_without_a_word():
    program = (
        "from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow; "
        "import_tensorflow(); import tensorflow as tf; tf.constant(1) + 1"
    )
    assert run("-c", program).stderr == ""
