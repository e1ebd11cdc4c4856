"""`evaluate`: scores a finished run on its validation data."""

import json

from tqdm import tqdm

from tf_panoptic_fpn import build
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.evaluation.evaluator import evaluate
from tf_panoptic_fpn.evaluation.report import format_table
from tf_panoptic_fpn.runs import load_predictor
from tf_panoptic_fpn.workdir import Workdir

SUMMARY = "score a finished run on its validation data"


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--output", help="folder for results.json and predictions/")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")


def run(arguments):
    results = evaluate_run(arguments.workdir, arguments.output, arguments.set)
    print(format_table(results))


def evaluate_run(workdir, output=None, overrides=()):
    """Evaluates a finished run on its validation split.

    Writes `results.json` and `predictions/` in `output`.

    Args:
        workdir: folder of the run.
        output: folder, by default the workdir.
        overrides: `a.b=value` strings, e.g. `merge.stuff_area=512` or another data set's paths.

    Returns:
        The results, see `evaluation.evaluator.evaluate`.
    """
    files = Workdir(output or workdir)
    files.create()
    predictor, config = load_predictor(workdir, overrides)
    split = build.load_split(config.data, "validation")
    build.check_categories(config, split.categories, config.data.validation.panoptic_json)
    results = evaluate(
        predictor,
        tqdm(evaluation_samples(split), "evaluate", len(split.images), unit="image"),
        split.categories,
        files.predictions,
        semantic_things=config.model.semantic_things,
    )
    files.results.write_text(json.dumps(results, indent=1))
    return results
