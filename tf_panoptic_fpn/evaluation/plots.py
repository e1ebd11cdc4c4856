"""Line charts, laid out for the template of the report to draw as SVG."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 44
Point = tuple[float, float]
Range = tuple[float, float]


def line_chart(
    series: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
) -> dict[str, Any]:
    """Lays out a line chart.

    Args:
        series: dict name -> list of (x, y), by ascending x.
        x_label, y_label: str, the titles of the axes.
        x_range, y_range: (low, high), or None for the range of the points.

    Returns:
        dict for the macro `line_chart` of the template, in the units of a view box of `width` x
        `height`: `x_ticks` and `y_ticks`, lists of (position, text), `lines`, a list of dicts
        `name`, `path` and `points`, and the labels.
    """
    points = [point for line in series.values() for point in line]
    x_ticks = _ticks(*(x_range or _extent([x for x, _ in points])))
    y_ticks = _ticks(*(y_range or _extent([y for _, y in points])))

    def x_at(x: float) -> float:
        return LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)

    def y_at(y: float) -> float:
        return (
            HEIGHT
            - BOTTOM
            - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM)
        )

    lines = []
    for name, line in series.items():
        places = [(round(x_at(x), 1), round(y_at(y), 1)) for x, y in line]
        path = "M" + "L".join(f"{x},{y}" for x, y in places)
        lines.append({"name": name, "path": path, "points": places})
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "box": (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
        "x_ticks": [(round(x_at(tick), 1), f"{tick:g}") for tick in x_ticks],
        "y_ticks": [(round(y_at(tick), 1), f"{tick:g}") for tick in y_ticks],
        "x_label": x_label,
        "y_label": y_label,
        "lines": lines,
    }


def _extent(values: Iterable[float]) -> Range:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 1, high + 1)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from at or below `low` to at or above `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
