"""The figures of an evaluation as plain text and as a page of HTML."""

import base64
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.evaluation.metric_tables import number_of
from tf_panoptic_fpn.evaluation.plots import line_chart
from tf_panoptic_fpn.metrics.coco_ap import METRICS
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.visualize import DIFFERENCES, draw_difference, draw_panoptic

GALLERY_BYTES = 3_300_000  # of all pictures; base64 adds a third
PICTURE_SIDES = (800, 640, 480, 360, 240, 160)  # pixels, the longer side, tried in turn
GROUPS = ("All", "Things", "Stuff")
THRESHOLDS = {
    "score_threshold": "Score threshold",
    "overlap_threshold": "Overlap threshold",
    "stuff_area": "Stuff area (pixels)",
}
SEMANTIC = {
    "mIoU": "mIoU",
    "fIoU": "fIoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
}


@dataclasses.dataclass(frozen=True)
class GalleryEntry:
    """One image of the gallery; the ground truth is as `PanopticQuality.update` takes it."""

    kind: str  # "best", "median" or "worst"
    pq: float  # the image's own, a fraction
    gt_ids: np.ndarray  # int [H, W]
    gt_segments: list[dict]
    result: Result  # with its image and the name of its file


def write_report(
    path: str | os.PathLike,
    results: Mapping[str, Any],
    gallery: Sequence[GalleryEntry],
    config_text: str,
    categories: CategoryTable,
) -> None:
    """Writes the results of an evaluation as one HTML page that needs no other file.

    A part that `results` lacks (a task that the model does not have, no sweep) has no section.

    The pictures are made smaller, down to 160 pixels, as it takes to keep the page below 5 MB.

    Args:
        path: file to write.
        results: dict, as `evaluate` returns it.
        gallery: list of `GalleryEntry`; entries are shown in the order given.
        config_text: str, the configuration of the run.
        categories: `CategoryTable`, for the names and colours of segments.

    Raises:
        PanopticError: if the file cannot be written.
    """
    panoptic = results.get("panoptic", {})
    bar_column, class_columns, class_rows = _class_table(results, categories)
    semantic_rows, instance_rows = _semantic_rows(results), _instance_rows(results)
    sweep = sorted(results.get("sweep", []), key=lambda row: -row["PQ"])
    curves = _precision_recall(results.get("precision_recall"))
    sections = {
        "summary": ("Summary", True),
        "classes": ("Classes", True),
        "sizes": ("Size", panoptic.get("by_size")),
        "confusions": ("Confusions", panoptic.get("confusions")),
        "precision-recall": ("Precision and recall", curves),
        "sweep": ("Thresholds", sweep),
        "gallery": ("Images", gallery),
        "configuration": ("Configuration", True),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tf_panoptic_fpn.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        results=results,
        num_images=number_of(results["images"], "image"),
        sections=[(anchor, title) for anchor, (title, shown) in sections.items() if shown],
        tiles=_tiles(results),
        panoptic=panoptic,
        group_rows=[_group_row(name, panoptic[name]) for name in GROUPS] if panoptic else [],
        semantic_rows=semantic_rows,
        instance_rows=instance_rows,
        bar_column=bar_column,
        class_columns=class_columns,
        class_rows=class_rows,
        by_size=panoptic.get("by_size"),
        confusions=panoptic.get("confusions"),
        precision_recall=curves,
        sweep=sweep,
        sweep_charts=_sweep_charts(sweep),
        gallery=_gallery(gallery, categories),
        differences=DIFFERENCES,
        config_text=config_text,
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise PanopticError(f"{path}: cannot be written: {error.strerror}") from None


def format_table(results: Mapping[str, Any]) -> str:
    """Formats the results of `evaluate` for a terminal.

    Args:
        results: dict, as `evaluate` returns it.

    Returns:
        str: panoptic quality, AP, semantic IoU, and the classes that occur by descending PQ; in per
        cent, `-` where a figure has nothing to stand on. A task without results has no table.
    """
    blocks, panoptic = [], results.get("panoptic")
    if panoptic:
        header = ["Panoptic", "PQ", "SQ", "RQ", "classes"]
        blocks.append(_table(header, [_group_row(name, panoptic[name]) for name in GROUPS]))
    blocks += [
        _table(rows[0], rows[1:])
        for rows in (_instance_rows(results), _semantic_rows(results))
        if rows
    ]
    if panoptic:
        header = ["Class", "PQ", "SQ", "RQ", "tp", "fp", "fn"]
        blocks.append(_table(header, _class_rows(panoptic["per_class"])))
    images = number_of(results["images"], "image")
    blocks.append(f"{images}, {results['seconds_per_image']:.3f} s an image")
    return "\n\n".join(blocks)


def _instance_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The table of AP with its header, or none without instances."""
    rows = [
        [title, *(_percent(results[key][name]) for name in METRICS)]
        for title, key in (("Box", "box_ap"), ("Mask", "mask_ap"))
        if key in results
    ]
    return [["Instances", *METRICS], *rows] if rows else []


def _semantic_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The table of semantic segmentation with its header, or none without the task."""
    semantic = results.get("semantic")
    if semantic is None:
        return []
    known = {title: semantic[key] for key, title in SEMANTIC.items() if key in semantic}
    return [["Semantic", *known], ["All", *map(_percent, known.values())]]


def _group_row(name: str, group: Mapping[str, Any]) -> list[str]:
    shares = (group[key] if group["n"] else None for key in ("PQ", "SQ", "RQ"))
    return [name, *map(_percent, shares), str(group["n"])]


def _class_rows(per_class: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    counts = ("tp", "fp", "fn")
    occurring = [item for item in per_class.items() if any(item[1][key] for key in counts)]
    return [
        [name, *(_percent(c[key]) for key in ("PQ", "SQ", "RQ")), *(str(c[key]) for key in counts)]
        for name, c in sorted(occurring, key=lambda item: -item[1]["PQ"])
    ]


def _tiles(results: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """The headline: (name, fraction or None)."""
    tiles = []
    if "panoptic" in results:
        groups = {"PQ": "All", "PQ things": "Things", "PQ stuff": "Stuff"}
        panoptic = results["panoptic"]
        tiles += [
            (title, panoptic[name]["PQ"] if panoptic[name]["n"] else None)
            for title, name in groups.items()
        ]
    aps = (("Mask AP", "mask_ap"), ("Box AP", "box_ap"))
    tiles += [(title, results[key]["AP"]) for title, key in aps if key in results]
    if "semantic" in results:
        tiles.append(("mIoU", results["semantic"]["mIoU"]))
    return tiles


def _class_table(
    results: Mapping[str, Any], categories: CategoryTable
) -> tuple[str | None, list[str], list[dict[str, Any]]]:
    """The figures of each class.

    Returns:
        The column that has the bars, the columns, and a dict a class from column to value, by
        descending value of the bars; None where nothing of the class occurs.
    """
    kinds = {
        categories.unique_names[c.id]: "thing" if c.is_thing else "stuff"
        for c in categories.categories
    }
    columns = {}  # title -> dict: class name -> value
    quality = results.get("panoptic", {}).get("per_class")
    if quality:
        counts = {"TP": "tp", "FP": "fp", "FN": "fn"}
        occurring = {n: c for n, c in quality.items() if any(c[key] for key in counts.values())}
        for key in ("PQ", "SQ", "RQ"):
            columns[key] = {name: figures[key] for name, figures in occurring.items()}
        for title, key in counts.items():
            columns[title] = {name: figures[key] for name, figures in occurring.items()}
    for title, key in (("mask AP", "mask_ap"), ("box AP", "box_ap"), ("IoU", "semantic")):
        if results.get(key, {}).get("per_class"):
            columns[title] = results[key]["per_class"]
    names = list(kinds) + [n for n in columns.get("IoU", {}) if n not in kinds]
    bar_column = next(iter(columns), None)
    rows = [
        {
            "class": name,
            "kind": kinds.get(name, "-"),
            **{title: values.get(name) for title, values in columns.items()},
        }
        for name in names
    ]
    if bar_column:
        rows.sort(key=lambda row: -1 if row[bar_column] is None else row[bar_column], reverse=True)
    return bar_column, ["class", "kind", *columns], rows


def _precision_recall(curves: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The chart of precision against recall, or None without a value."""
    if not curves:
        return None
    series = {}
    for name in ("AP50", "AP75", "AP"):
        pairs = zip(curves["recall"], curves[name] or [], strict=curves[name] is not None)
        points = [(recall, precision) for recall, precision in pairs if precision is not None]
        if points:
            series[name] = points
    return line_chart(series, "recall", "precision", (0, 1), (0, 1)) if series else None


def _sweep_charts(sweep: Sequence[Mapping[str, float]]) -> list[tuple[str, dict[str, Any]]]:
    """Charts (title, layout) of the highest PQ at each value of each threshold that varies."""
    charts = []
    for key, title in THRESHOLDS.items():
        best: dict[float, float] = {}
        for row in sweep:
            best[row[key]] = max(best.get(row[key], 0), 100 * row["PQ"])
        if len(best) > 1:
            charts.append((title, line_chart({title: sorted(best.items())}, title, "PQ")))
    return charts


def _gallery(gallery: Sequence[GalleryEntry], categories: CategoryTable) -> list[dict[str, Any]]:
    """The entries with their pictures as data URLs."""
    budget = GALLERY_BYTES // (4 * max(len(gallery), 1))
    entries = []
    for entry in gallery:
        result = entry.result
        image = np.asarray(result.image)  # a gallery's results have theirs
        predicted = result.panoptic_map, result.segments
        truth = entry.gt_ids, entry.gt_segments
        pictures = {
            "image": image,
            "prediction": _panoptic_picture(image, *predicted, categories),
            "ground truth": _panoptic_picture(image, *truth, categories),
            "errors": draw_difference(image, *truth, *predicted, legend=False),
        }
        entries.append(
            {
                "kind": entry.kind,
                "file_name": result.file_name,
                "pq": entry.pq,
                "pictures": {name: _data_url(p, budget) for name, p in pictures.items()},
            }
        )
    return entries


def _panoptic_picture(
    image: np.ndarray,
    ids: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    categories: CategoryTable,
) -> np.ndarray:
    """Draws at the size of the page, so that labels can be read there."""
    size = _thumbnail_size(ids.shape[1], ids.shape[0], PICTURE_SIDES[0])
    image = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    ids = Image.fromarray(np.asarray(ids, np.int32)).resize(size, Image.Resampling.NEAREST)
    return draw_panoptic(np.array(image), np.array(ids), segments, categories)


def _thumbnail_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with a longer side of at most `side`."""
    scale = min(side / max(width, height), 1)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _data_url(picture: np.ndarray, budget: int) -> str:
    """A JPEG of at most `budget` bytes, or the smallest that is tried."""
    picture = Image.fromarray(picture)
    for side in PICTURE_SIDES:
        buffer = io.BytesIO()
        size = _thumbnail_size(*picture.size, side)
        picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=82)
        if buffer.tell() <= budget:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in [header, *rows]
    )
