"""`train`: trains, evaluates and exports a Panoptic FPN."""

import argparse
import pathlib
import typing

from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow

SUMMARY = "train, evaluate and export a model; an interrupted run goes on where it stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, help="YAML file, or the name of one of the shipped recipes"
    )
    parser.add_argument("--workdir", help="folder of the run; by default runs/NAME_OF_CONFIG")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=value",
        help="a value of the configuration",
    )


def run(arguments: argparse.Namespace) -> None:
    import_tensorflow()
    from tf_panoptic_fpn.config import load_config
    from tf_panoptic_fpn.config.recipes import find_config
    from tf_panoptic_fpn.distribution.workers import start_workers
    from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
    from tf_panoptic_fpn.evaluation.report import format_table
    from tf_panoptic_fpn.export.saved_model import export_model
    from tf_panoptic_fpn.inference.load_predictor import predictor_of
    from tf_panoptic_fpn.inference.model_source import find_model
    from tf_panoptic_fpn.inference.predictor import Predictor
    from tf_panoptic_fpn.training.loop import train
    from tf_panoptic_fpn.workdir import Workdir

    config = load_config(arguments.config, arguments.set)
    workdir = arguments.workdir or pathlib.Path("runs") / find_config(arguments.config).stem
    workers = start_workers(config.train)
    with workers.ending_together():
        config = train(config, workdir, workers)
        # Another worker may have the data elsewhere than the first, who wrote its configuration.
        own_data = [] if workers.is_first else [f"data.root={config.data.root}"]
        model = find_model(workdir, overrides=own_data)
        predictor = typing.cast(Predictor, predictor_of(model))  # of a run, which is no export
        results = evaluate_run(model, machines=workers, predictor=predictor)
    if not workers.is_first:
        return
    export_model(model, predictor=predictor)

    files = Workdir(workdir)
    print(format_table(results))
    print(f"metrics      {files.metrics} (TensorBoard: {files.tensorboard})")
    print(f"model        {files.trained}")
    print(f"results      {files.results} (page: {files.report})")
    print(f"predictions  {files.predictions} (pictures: {files.predictions / 'overlays'})")
    print(f"SavedModel   {files.saved_model}")
    print(f"next         tf-panoptic-fpn predict --model={files.path} --output=FOLDER IMAGE ...")
