"""A picture whose segments light up under the pointer, as HTML without a script."""

import base64
import html
import io
import itertools

import numpy as np
from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.masks.outlines import Polygon, outlines, simplify
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.visualize.colors import RGB, segment_colors, text_color
from tf_panoptic_fpn.visualize.labels import label_text

MOST_PIXELS = 1024  # of the longer side of what is shown
TOLERANCE = 0.7  # pixels by which an outline may differ
STYLE = """
.panoptic { margin: 0; }
.panoptic svg { width: 100%; height: auto; max-height: 75vh; display: block; }
.panoptic .segment { fill-opacity: .45; stroke-opacity: .9; outline: none; cursor: pointer;
  transition: fill-opacity .1s; }
.panoptic svg:has(.segment:hover) .segment:not(:hover) { fill-opacity: .15; }
.panoptic text { visibility: hidden; pointer-events: none; font: 600 1px system-ui, sans-serif;
  fill: #fff; stroke: #000; paint-order: stroke; text-anchor: middle;
  dominant-baseline: middle; }
.panoptic figcaption { display: flex; flex-wrap: wrap; gap: .4rem; margin: .7rem 0 .3rem; }
.panoptic figcaption span { padding: .1rem .6rem; border-radius: 1rem; font-size: .9rem;
  cursor: pointer; outline-offset: 1px; }
"""


def overlay(result: Result, kinds: tuple[str, ...] = ("things", "stuff")) -> str:
    """Draws a `Result` as HTML: the image as SVG with its segments, and their names below.

    A segment lights up and shows its name while the pointer, a finger or the keyboard is on it or
    on its name.

    Args:
        result: `Result` with its image.
        kinds: "things", "stuff": which segments are shown.

    Raises:
        DataError: if the image is not known.
    """
    if result.image is None:
        raise DataError("The result must hold its image to be drawn. Received: None")
    step = -(-max(result.image.shape[:2]) // MOST_PIXELS)
    ids = result.panoptic_map[::step, ::step]
    shapes, texts, names, rules = [], [], [], []
    colors = segment_colors(result.segments, result.categories)
    for segment, color in zip(result.segments, colors, strict=True):
        category = result.categories.by_id[segment["category_id"]]
        if ("things" if category.is_thing else "stuff") not in kinds:
            continue
        number, name = segment["id"], html.escape(label_text(category, segment.get("score")))
        polygons, (x, y) = _polygons(ids == number)
        if not polygons:
            continue
        fill = "rgb({},{},{})".format(*color)
        shapes.append(
            f'<path class="segment s{number}" tabindex="0" fill="{fill}" stroke="{fill}" '
            f'fill-rule="evenodd" d="{_path(polygons)}"><title>{name}</title></path>'
        )
        texts.append(f'<text class="t{number}" x="{x}" y="{y}">{name}</text>')
        names.append(
            f'<span class="n{number}" style="background:{fill};color:{_css(text_color(color))}" '
            f'tabindex="0">{name}</span>'
        )
        is_on = f".panoptic:has(.s{number}:is(:hover, :focus), .n{number}:is(:hover, :focus))"
        rules.append(
            f"{is_on} .s{number} {{ fill-opacity: .8 !important; }} "
            f"{is_on} .t{number} {{ visibility: visible; }} "
            f"{is_on} .n{number} {{ outline: 2px solid currentColor; }}"
        )
    height, width = ids.shape
    size = max(width, height) / 30
    rules.append(f".panoptic text {{ font-size: {size:.1f}px; stroke-width: {size / 6:.1f}px; }}")
    return (
        f"<style>{STYLE}{''.join(rules)}</style>"
        f'<figure class="panoptic"><svg viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg"><image width="{width}" height="{height}" '
        f'href="{_data_uri(result.image, (width, height))}"/>{"".join(shapes)}{"".join(texts)}'
        f"</svg><figcaption>{''.join(names) or 'nothing found'}</figcaption></figure>"
    )


def _polygons(mask: np.ndarray) -> tuple[list[Polygon], tuple[float, float]]:
    """The polygons of a mask, and a point (x, y) for its name: the middle of its widest rows."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return [], (0, 0)
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    y, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    wide = np.flatnonzero(ends - starts >= 0.9 * (ends - starts).max())
    place = wide[len(wide) // 2]
    middle = float(starts[place] + ends[place]) / 2, float(y[place]) + 0.5
    return outlines(mask), middle


def _path(polygons: list[Polygon]) -> str:
    rings = (simplify(ring, TOLERANCE) for ring in itertools.chain(*polygons))
    return "".join("M" + " ".join(f"{x},{y}" for x, y in ring.tolist()) + "Z" for ring in rings)


def _css(color: RGB) -> str:
    return "rgb({},{},{})".format(*color)


def _data_uri(image: np.ndarray, size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).resize(size).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
