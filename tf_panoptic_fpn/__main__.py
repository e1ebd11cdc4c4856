"""`python -m tf_panoptic_fpn COMMAND`."""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tf_panoptic_fpn import commands
from tf_panoptic_fpn.evaluation.report import format_table


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tf_panoptic_fpn", allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True)

    evaluate = subparsers.add_parser("evaluate", help="score a finished run on its validation data")
    evaluate.add_argument("--workdir", required=True, help="folder of the run")
    evaluate.add_argument("--output", help="folder for results.json and predictions/")
    evaluate.add_argument("--set", action="append", default=[], metavar="a.b=value")

    predict = subparsers.add_parser("predict", help="segment image files")
    predict.add_argument("--workdir", required=True, help="folder of the run")
    predict.add_argument("--output", required=True, help="folder to write to")
    predict.add_argument("images", nargs="+", metavar="IMAGE")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.command == "evaluate":
        results = commands.evaluate_run(arguments.workdir, arguments.output, arguments.set)
        print(format_table(results))
    elif arguments.command == "predict":
        commands.predict_files(arguments.workdir, arguments.output, arguments.images)


if __name__ == "__main__":
    commands.exit_on_error(main)
