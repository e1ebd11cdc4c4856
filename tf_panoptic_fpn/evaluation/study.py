"""The figures of a study: medians over the trials of each setting, as a table and a chart."""

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.evaluation.plots import line_chart
from tf_panoptic_fpn.evaluation.trial_statistics import headlines, read_results, summarize

CHARTED = ("PQ", "Box AP", "Mask AP", "mIoU")
COLORS = ("#0b62b4", "#b3490a", "#00734f", "#7a3fa0", "#8a6d00", "#c02560")


def value_text(value: Any) -> str:
    """Returns a value of a grid as it stands in names and tables."""
    return value if isinstance(value, str) else json.dumps(value)


def summarize_study(
    settings: Sequence[tuple[Mapping[str, Any], Sequence[pathlib.Path]]],
) -> list[dict[str, Any]]:
    """Takes the medians and the spread of each setting over the trials that are finished.

    Args:
        settings: list of (dict of dotted key -> value, folders of its trials).

    Returns:
        list of dicts: `values`; `folders`, those with a `results.json`; `planned`, the number of
        trials; and `figures`, see `summarize_trials`, empty where no trial is finished.

    Raises:
        DataError: if a `results.json` cannot be read.
    """
    rows = []
    for values, folders in settings:
        finished = [folder for folder in folders if (folder / "results.json").is_file()]
        rows.append(
            {
                "values": dict(values),
                "folders": [str(folder) for folder in finished],
                "planned": len(folders),
                "figures": summarize([read_results(folder) for folder in finished]),
            }
        )
    return rows


def format_study(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats what `summarize_study` returns as a table of medians, in per cent."""
    header, *lines = _cells(rows)
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    texts = []
    for line in (header, *lines):
        texts.append("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)))
    return "\n".join(texts)


def write_study(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `sweep.json`, `sweep.csv` and, where a trial is finished, `sweep.svg`.

    The table has the medians in per cent, the JSON every figure as a fraction.
    """
    write_text(folder / "sweep.json", json.dumps(rows, indent=1))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(_cells(rows))
    write_text(folder / "sweep.csv", table.getvalue())
    chart = study_chart(rows)
    if chart:
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("tf_panoptic_fpn.evaluation", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        )
        picture = environment.get_template("study.svg.jinja").render(chart=chart, colors=COLORS)
        write_text(folder / "sweep.svg", picture)


def study_chart(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Lays out the figures over the first key of the grid, see `plots.line_chart`.

    With one key there is a line of medians for each of PQ, AP and mIoU; with more, one of PQ for
    each combination of the others. Values that are no numbers stand at equal distances.

    Returns:
        The layout, where `dots`, as `lines`, are the trials themselves; None where nothing is
        finished or the grid is empty.
    """
    keys = list(rows[0]["values"])
    medians: dict[str, list[tuple[float, float]]] = {}
    trials: dict[str, list[tuple[float, float]]] = {}
    places = _places([row["values"][keys[0]] for row in rows]) if keys else {}
    for row in rows if keys else []:
        x = places[value_text(row["values"][keys[0]])]
        others = ", ".join(f"{key} = {value_text(row['values'][key])}" for key in keys[1:])
        for title, figure in headlines(row["figures"]).items():
            if figure and title in (("PQ",) if others else CHARTED):
                line = others or title
                medians.setdefault(line, []).append((x, 100 * figure["median"]))
                trials.setdefault(line, []).extend((x, 100 * v) for v in figure["values"])
    if not medians:
        return None
    medians = {name: sorted(points) for name, points in medians.items()}
    both = [*medians.items(), *((f"{name}: trials", points) for name, points in trials.items())]
    chart = line_chart(dict(both), keys[0], "PQ" if keys[1:] else "per cent")
    chart["lines"], chart["dots"] = chart["lines"][: len(medians)], chart["lines"][len(medians) :]
    if any(value_text(place) != value for value, place in places.items()):
        marks = {
            x: place
            for points, line in zip(medians.values(), chart["lines"], strict=True)
            for (x, _), (place, _) in zip(points, line["points"], strict=True)
        }
        chart["x_ticks"] = [(marks[x], text) for text, x in places.items() if x in marks]
    return chart


def _places(values: Sequence[Any]) -> dict[str, float]:
    """Dict: value as value_text -> place on the axis, its own or its number in the list."""
    values = list({value_text(value): value for value in values}.values())
    numbers = all(type(value) in (int, float) for value in values)
    return {value_text(value): value if numbers else i for i, value in enumerate(values)}


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table, its header first; figures that no setting has are left out."""
    found = [headlines(row["figures"]) for row in rows]
    titles = [title for title in found[0] if any(figures[title] for figures in found)]
    lines = [[*rows[0]["values"], "trials", *titles]]
    for row, figures in zip(rows, found, strict=True):
        medians = [figures[title] and f"{100 * figures[title]['median']:.1f}" for title in titles]
        count, planned = len(row["folders"]), row["planned"]
        trials = str(count) if count == planned else f"{count} of {planned}"
        lines.append(
            [*map(value_text, row["values"].values()), trials, *(cell or "-" for cell in medians)]
        )
    return lines
