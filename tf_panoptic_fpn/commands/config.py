"""`config`: prints a configuration whole, or lists the recipes."""

import argparse

from tf_panoptic_fpn.config import format_config, list_recipes, load_config
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "print a configuration whole, or list the recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="YAML file, or the name of a recipe")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--list", action="store_true", help="list the shipped recipes")


def run(arguments: argparse.Namespace) -> None:
    if arguments.list == bool(arguments.config):
        raise ConfigError("Either --config or --list must be given")
    if arguments.list:
        print("\n".join(list_recipes()))
    else:
        print(format_config(load_config(arguments.config, arguments.set)), end="")
