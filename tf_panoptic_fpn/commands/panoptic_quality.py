"""`panoptic-quality`: scores COCO panoptic results as panopticapi does."""

import argparse
import sys
import time
from collections.abc import Iterable

from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "score COCO panoptic results, as panopticapi does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # The names with underscores are panopticapi's.
    parser.add_argument("--gt-json", "--gt_json_file", required=True, help="ground truth")
    parser.add_argument("--pred-json", "--pred_json_file", required=True, help="predictions")
    for of in ("gt", "pred"):
        parser.add_argument(
            f"--{of}-dir",
            f"--{of}_folder",
            dest=f"{of}_dir",
            help=f"folder of the PNGs; by default X for --{of}-json=X.json",
        )
    parser.add_argument("--json", metavar="OUT", help="file to write all figures to")
    parser.add_argument(
        "--strict", action="store_true", help="count the map's pixels and do not believe its JSON"
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=ID,ID",
        help="a group of categories to average, by id; may be given several times",
    )


def run(arguments: argparse.Namespace) -> None:
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file, number_of
    from tf_panoptic_fpn.evaluation.panoptic_files import (
        default_dir,
        evaluate_panoptic_files,
        format_pq_table,
    )

    start = time.perf_counter()
    splits = _read_splits(arguments.split)
    gt_dir = arguments.gt_dir or default_dir(arguments.gt_json)
    pred_dir = arguments.pred_dir or default_dir(arguments.pred_json)
    result = evaluate_panoptic_files(
        arguments.gt_json, arguments.pred_json, gt_dir, pred_dir, arguments.strict, splits
    )
    if result["num_mismatched"]:
        print(
            f"warning: in {number_of(result['num_mismatched'], 'image')} the ids or areas in the "
            "JSON of the ground truth are not those of its PNG; --strict counts the PNG",
            file=sys.stderr,
        )
    with figures_file(result, arguments.json):
        print("Evaluation panoptic segmentation metrics:")
        for title, folder, file in (
            ("Ground truth", gt_dir, arguments.gt_json),
            ("Prediction", pred_dir, arguments.pred_json),
        ):
            print(f"{title}:\n\tSegmentation folder: {folder}\n\tJSON file: {file}")
        print(format_pq_table(result))
        print(f"Time elapsed: {time.perf_counter() - start:.2f} seconds")


def _read_splits(texts: Iterable[str]) -> dict[str, list[int]]:
    """Dict name -> category ids of `NAME=ID,ID` texts."""
    splits = {}
    for text in texts:
        name, _, ids = text.partition("=")
        try:
            splits[name] = [int(category_id) for category_id in ids.split(",")]
        except ValueError:
            raise ConfigError(f"--split must be NAME=ID,ID. Received: {text}") from None
    return splits
