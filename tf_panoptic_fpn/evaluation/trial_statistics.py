"""Median and spread of the results of several runs."""

import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tf_panoptic_fpn.errors import DataError

# Rows of the table: title and path in the results.
HEADLINES = (
    ("PQ", ("panoptic", "All", "PQ")),
    ("SQ", ("panoptic", "All", "SQ")),
    ("RQ", ("panoptic", "All", "RQ")),
    ("PQ things", ("panoptic", "Things", "PQ")),
    ("PQ stuff", ("panoptic", "Stuff", "PQ")),
    ("Box AP", ("box_ap", "AP")),
    ("Mask AP", ("mask_ap", "AP")),
    ("mIoU", ("semantic", "mIoU")),
    ("fIoU", ("semantic", "fIoU")),
    ("iIoU", ("semantic", "iIoU")),
)


def summarize_trials(folders: Sequence[str | os.PathLike]) -> dict[str, Any]:
    """Takes the median and the spread of every figure over several evaluations.

    Args:
        folders: two or more folders with a `results.json`.

    Returns:
        dict: `trials`, the folders; `figures`, a dict shaped as the results where each number is a
        dict `median`, `min`, `max`, `std` (of the sample) and `values`, one for each folder that
        has the figure. Lists, such as the sweep, are left out.

    Raises:
        DataError: if there are fewer than two folders, or a `results.json` cannot be read.
    """
    if len(folders) < 2:
        raise DataError(f"Trials need two or more folders. Received: {len(folders)}")
    trials = [read_results(folder) for folder in folders]
    return {"trials": [str(folder) for folder in folders], "figures": summarize(trials)}


def read_results(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the `results.json` of an evaluation.

    Raises:
        DataError: if it cannot be read.
    """
    path = pathlib.Path(folder) / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(results, dict):
        raise DataError(f"{path}: must hold a JSON object, the results of an evaluation")
    return results


def format_trials(summary: Mapping[str, Any]) -> str:
    """Formats what `summarize_trials` returns as a table, in per cent."""
    rows = []
    for title, figure in headlines(summary["figures"]).items():
        if figure:
            cells = [f"{100 * figure[key]:6.1f}" for key in ("median", "min", "max", "std")]
            rows.append(f"{title:<12}{''.join(cells)}{len(figure['values']):6}")
    header = f"{'':<12}{'median':>6}{'min':>6}{'max':>6}{'std':>6}{'runs':>6}"
    return "\n".join([header, *rows])


def headlines(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of the table by their titles: of `summarize`, dicts, empty if absent."""
    found = {}
    for title, path in HEADLINES:
        figure: Any = figures
        for key in path:
            figure = figure.get(key, {})
        found[title] = figure
    return found


def summarize(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the figures of several results, as `summarize_trials`; of one as well."""
    summary: dict[str, Any] = {}
    for key in dict.fromkeys(key for tree in trees for key in tree):
        found = [tree[key] for tree in trees if tree.get(key) is not None]
        if found and all(isinstance(value, dict) for value in found):
            summary[key] = summarize(found)
        elif found and all(isinstance(value, (int, float)) for value in found):
            summary[key] = {
                "median": statistics.median(found),
                "min": min(found),
                "max": max(found),
                "std": statistics.stdev(found) if len(found) > 1 else 0.0,
                "values": found,
            }
    return summary
