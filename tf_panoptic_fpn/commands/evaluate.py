"""`evaluate`: scores a model on its validation data."""

import json
import pathlib

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
from tf_panoptic_fpn.evaluation.report import format_table
from tf_panoptic_fpn.evaluation.trial_statistics import format_trials, summarize_trials
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.workdir import Workdir

SUMMARY = "score a model on its validation data"


def add_arguments(parser):
    parser.add_argument("--workdir", help="folder of a finished run")
    parser.add_argument("--config", help="YAML file, with --weights or --saved-model")
    parser.add_argument("--weights", help="model, a .keras file")
    parser.add_argument("--saved-model", help="folder of an exported SavedModel")
    parser.add_argument("--output", help="folder for the results, by default the workdir")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
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


def run(arguments):
    if arguments.trials:
        _summarize(arguments)
        return
    source = ModelSource(
        arguments.workdir,
        arguments.config,
        arguments.weights,
        arguments.saved_model,
        tuple(arguments.set),
    )
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
        print(f"{len(absent)} classes do not occur in the ground truth: {', '.join(absent)}")
    print(f"report       {Workdir(arguments.output or arguments.workdir).report}")


def _summarize(arguments):
    if arguments.workdir or arguments.config:
        raise ConfigError("--trials takes no model: it reads results.json of each folder")
    summary = summarize_trials(arguments.trials)
    print(format_trials(summary))
    if arguments.output:
        folder = pathlib.Path(arguments.output)
        Workdir(folder).create()
        (folder / "trials.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
