"""`tf-panoptic-fpn COMMAND`, or `python -m tf_panoptic_fpn COMMAND`."""

import argparse
import importlib
import sys
from typing import Any

from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.paths import expand_arguments

COMMANDS = (
    "train",
    "sweep",
    "evaluate",
    "predict",
    "predict-beam",
    "collect-predictions",
    "demo",
    "export",
    "validate-data",
    "show-data",
    "convert-data",
    "convert-cityscapes",
    "convert-weights",
    "write-records",
    "panoptic-quality",
    "instance-ap",
    "semantic-iou",
    "cityscapes-ap",
    "cityscapes-iou",
    "config",
    "analyze",
)


def main(command: str | None = None) -> None:
    """Runs the command line; what a user can mend ends the process with one line.

    Args:
        command: one of `COMMANDS`, for a program that is nothing else; None: the first argument.
    """
    exit_on_error(lambda: run_command(command))


def run_command(command: str | None = None) -> None:
    """Reads the command line and runs the command, whose module imports what it needs then."""
    if command:
        module = _module(command)
        parser = argparse.ArgumentParser(description=module.SUMMARY, allow_abbrev=False)
        module.add_arguments(parser)
        module.run(parser.parse_args(expand_arguments(sys.argv[1:])))
        return
    parser = argparse.ArgumentParser(prog="tf-panoptic-fpn", allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = [argument for argument in sys.argv[1:2] if argument in COMMANDS]
    for name in named or COMMANDS:
        subparser = subparsers.add_parser(name, help=_module(name).SUMMARY, allow_abbrev=False)
        _module(name).add_arguments(subparser)
    arguments = parser.parse_args(expand_arguments(sys.argv[1:]))
    _module(arguments.command).run(arguments)


def _module(command: str) -> Any:
    return importlib.import_module(f"tf_panoptic_fpn.commands.{command.replace('-', '_')}")


if __name__ == "__main__":
    main()
