"""Figures of one metric: as text for a terminal, and as a JSON file."""

import json
import pathlib

from tf_panoptic_fpn.errors import DataError


def format_figures(title, rows):
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


def write_figures(result, path):
    """Writes a metric's result, fractions in full precision, as JSON; None stays null.

    Raises:
        DataError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
