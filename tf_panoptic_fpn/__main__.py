"""`python -m tf_panoptic_fpn COMMAND`."""

import argparse

from tf_panoptic_fpn import commands
from tf_panoptic_fpn.build import build_model
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.evaluation.report import format_table
from tf_panoptic_fpn.weights.convert import SOURCES, convert_weights
from tf_panoptic_fpn.weights.plan import PREDICTORS


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

    convert = subparsers.add_parser("convert-weights", help="import another framework's weights")
    convert.add_argument("--source", required=True, choices=sorted(SOURCES))
    convert.add_argument("--config", help="the model, where the file does not hold a whole one")
    convert.add_argument("--set", action="append", default=[], metavar="a.b=value")
    convert.add_argument("--skip-predictors", action="store_true", help="for other classes")
    for name in ("--allow-missing", "--allow-left-over", "--allow-config"):
        convert.add_argument(name, action="append", default=[], metavar="PATTERN")
    convert.add_argument("input", metavar="INPUT", help=".pkl, .pth, .npz or .h5")
    convert.add_argument("output", metavar="OUTPUT", help=".keras")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.command == "evaluate":
        results = commands.evaluate_run(arguments.workdir, arguments.output, arguments.set)
        print(format_table(results))
    elif arguments.command == "predict":
        commands.predict_files(arguments.workdir, arguments.output, arguments.images)
    elif arguments.command == "convert-weights":
        config = arguments.config
        convert_weights(
            arguments.source,
            arguments.input,
            arguments.output,
            build_model(load_config(config, arguments.set)) if config else None,
            allow_missing=arguments.allow_missing,
            allow_left_over=arguments.allow_left_over,
            allow_config=arguments.allow_config,
            skip=PREDICTORS if arguments.skip_predictors else (),
        )


if __name__ == "__main__":
    commands.exit_on_error(main)
