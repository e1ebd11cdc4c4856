"""Trains, evaluates and exports a Panoptic FPN.

python train.py --config=configs/quickstart.yaml [--workdir=DIR] [--set a.b=value ...]

The same command goes on where an interrupted run stopped.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.config.recipes import find_config
from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
from tf_panoptic_fpn.evaluation.report import format_table
from tf_panoptic_fpn.export.saved_model import export_run
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.paths import expand_arguments
from tf_panoptic_fpn.training.loop import train
from tf_panoptic_fpn.workdir import Workdir


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", required=True, help="YAML file, or a recipe of configs/")
    parser.add_argument("--workdir", help="folder of the run; by default runs/NAME_OF_CONFIG")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=value",
        help="a value of the configuration",
    )
    return parser.parse_args(expand_arguments(sys.argv[1:]))


def main():
    arguments = parse_arguments()
    config = load_config(arguments.config, arguments.set)
    workdir = arguments.workdir or pathlib.Path("runs") / find_config(arguments.config).stem
    train(config, workdir)
    results = evaluate_run(ModelSource(workdir))
    export_run(workdir)

    files = Workdir(workdir)
    print(format_table(results))
    print(f"metrics      {files.metrics} (TensorBoard: {files.tensorboard})")
    print(f"model        {files.model}")
    print(f"results      {files.results} (page: {files.report})")
    print(f"predictions  {files.predictions} (pictures: {files.predictions / 'overlays'})")
    print(f"SavedModel   {files.saved_model}")


if __name__ == "__main__":
    exit_on_error(main)
