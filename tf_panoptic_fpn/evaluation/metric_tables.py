"""Figures of one metric: as text for a terminal, and as a JSON file."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.errors import DataError


def number_of(count: int, noun: str) -> str:
    """Returns "1 image", "2 images", "2 classes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


def format_figures(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Formats figures as a table, in per cent.

    Args:
        title: str, head of the first column.
        rows: dict row name -> dict column name -> fraction or None, all with the same columns.

    Returns:
        str; `-` where a figure is None.
    """
    columns = list(next(iter(rows.values())))
    width = max(len(name) for name in (title, *rows))
    lines = ["  ".join([title.ljust(width), *(column.rjust(6) for column in columns)])]
    for name, figures in rows.items():
        cells = ("-" if v is None else f"{100 * v:.2f}" for v in figures.values())
        cells = (cell.rjust(max(len(c), 6)) for cell, c in zip(cells, columns, strict=True))
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)


@contextlib.contextmanager
def figures_file(result: Mapping[str, Any], path: str | os.PathLike | None) -> Iterator[None]:
    """Writes a metric's result, fractions in full precision, as JSON; None stays null.

    The file is written before the block, so that it is there whatever becomes of what the block
    prints; that it cannot be written is said after the block, so that the figures are not lost.

    Args:
        result: dict for JSON.
        path: of the file; None: nothing is written.

    Raises:
        DataError: after the block, if the file cannot be written.
    """
    failure = None
    try:
        if path:
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(result, indent=1))
    except OSError as error:
        failure = DataError(f"{path}: cannot be written: {error.strerror}")
    yield
    if failure:
        raise failure
