"""`python -m tf_panoptic_fpn COMMAND`."""

import argparse
import importlib
import os
import sys

from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.paths import expand_arguments

COMMANDS = (
    "cityscapes-ap",
    "cityscapes-iou",
    "config",
    "convert-cityscapes",
    "convert-data",
    "convert-weights",
    "evaluate",
    "instance-ap",
    "panoptic-quality",
    "predict",
    "semantic-iou",
    "show-data",
    "validate-data",
    "write-records",
)


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(prog="python -m tf_panoptic_fpn", allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True)
    named = [argument for argument in sys.argv[1:2] if argument in COMMANDS]
    modules = {}
    for command in named or COMMANDS:  # the module of another command may take long to import
        module = importlib.import_module(f"tf_panoptic_fpn.commands.{command.replace('-', '_')}")
        module.add_arguments(
            subparsers.add_parser(command, help=module.SUMMARY, allow_abbrev=False)
        )
        modules[command] = module
    arguments = parser.parse_args(expand_arguments(sys.argv[1:]))
    modules[arguments.command].run(arguments)


if __name__ == "__main__":
    exit_on_error(main)
