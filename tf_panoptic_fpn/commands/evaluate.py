"""`evaluate`: scores a model on its validation data."""

import argparse

from tf_panoptic_fpn.commands.model_arguments import add_model_arguments, model_source
from tf_panoptic_fpn.commands.quiet_tensorflow import EVERY_BACKEND, import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "score a model on its validation data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--output", help="folder for the results, by default that of the run")
    parser.add_argument(
        "--tta", action="store_true", help="test-time augmentation, see the section `tta`"
    )
    parser.add_argument(
        "--balance-classes",
        action="store_true",
        help="relate semantic probabilities to the shares of the classes in the training data",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="merge.KEY=VALUE,VALUE",
        help="PQ at several thresholds of the merge; repeated, their product",
    )
    parser.add_argument(
        "--submission", metavar="NAME", help="pack the results for COCO's server under this name"
    )
    parser.add_argument(
        "--trials", nargs="+", metavar="DIR", help="median and spread of these results instead"
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.trials:
        _summarize(arguments)
        return
    import_tensorflow(EVERY_BACKEND)
    from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
    from tf_panoptic_fpn.evaluation.metric_tables import number_of
    from tf_panoptic_fpn.evaluation.report import format_table
    from tf_panoptic_fpn.workdir import Workdir

    source = model_source(arguments)
    results = evaluate_run(
        source,
        arguments.output,
        tta=arguments.tta,
        balance_classes=arguments.balance_classes,
        sweep=arguments.sweep,
        submission=arguments.submission,
    )
    print(format_table(results))
    absent = results["absent_classes"]
    if absent:
        verb = "does" if len(absent) == 1 else "do"
        classes = number_of(len(absent), "class")
        print(f"{classes} {verb} not occur in the ground truth: {', '.join(absent)}")
    files = Workdir(arguments.output) if arguments.output else source.workdir
    if files:
        print(f"report       {files.report}")


def _summarize(arguments: argparse.Namespace) -> None:
    if arguments.models or arguments.config:
        raise ConfigError("--trials takes no model: it reads results.json of each folder")
    import json

    from tf_panoptic_fpn.atomic_write import write_text
    from tf_panoptic_fpn.evaluation.trial_statistics import format_trials, summarize_trials
    from tf_panoptic_fpn.workdir import Workdir

    summary = summarize_trials(arguments.trials)
    if arguments.output:
        files = Workdir(arguments.output)
        files.create()
        write_text(files.path / "trials.json", json.dumps(summary, indent=1))
    print(format_trials(summary))
