"""The figures of an evaluation as plain text and as a page of HTML."""

import dataclasses

import numpy as np

from tf_panoptic_fpn.evaluation.instance_ap import METRICS


@dataclasses.dataclass(frozen=True)
class GalleryEntry:
    """One image of the report's gallery; ids and segments as `PanopticQuality.update` takes them."""

    kind: str  # "best", "median" or "worst"
    file_name: str
    pq: float  # the image's own, a fraction
    image: np.ndarray  # uint8 [H, W, 3]
    gt_ids: np.ndarray  # int [H, W]
    gt_segments: list[dict]
    pred_ids: np.ndarray  # int [H, W]
    pred_segments: list[dict]


def write_report(path, results, gallery, config_text, categories):
    """Writes the results of an evaluation as one HTML page that needs no other file.

    A part that `results` lacks (a task that the model does not have, no sweep) has no section.

    Args:
        path: file to write.
        results: dict, as `evaluate` returns it.
        gallery: list of `GalleryEntry`; entries are shown in the order given.
        config_text: str, the configuration of the run.
        categories: `CategoryTable`, for the names and colours of segments.
    """
    raise NotImplementedError


def format_table(results):
    """Formats the results of `evaluate` for a terminal.

    Args:
        results: dict, as `evaluate` returns it.

    Returns:
        str: panoptic quality, AP, semantic IoU, and the classes that occur by descending PQ; in per
        cent, `-` where a figure has nothing to stand on. A task without results has no table.
    """
    panoptic = results["panoptic"]
    blocks = [
        _table(
            ["Panoptic", "PQ", "SQ", "RQ", "classes"],
            [_group_row(name, panoptic[name]) for name in ("All", "Things", "Stuff")],
        ),
    ]
    if "box_ap" in results:
        rows = [
            [title, *(_percent(results[key][name]) for name in METRICS)]
            for title, key in (("Box", "box_ap"), ("Mask", "mask_ap"))
        ]
        blocks.append(_table(["Instances", *METRICS], rows))
    if "semantic" in results:
        row = ["All", *(_percent(results["semantic"][key]) for key in ("mIoU", "pixel_accuracy"))]
        blocks.append(_table(["Semantic", "mIoU", "pixel accuracy"], [row]))
    blocks += [
        _table(["Class", "PQ", "SQ", "RQ", "tp", "fp", "fn"], _class_rows(panoptic["per_class"])),
        f"{results['images']} images, {results['seconds_per_image']:.3f} s an image",
    ]
    return "\n\n".join(blocks)


def _group_row(name, group):
    shares = (group[key] if group["n"] else None for key in ("PQ", "SQ", "RQ"))
    return [name, *map(_percent, shares), str(group["n"])]


def _class_rows(per_class):
    counts = ("tp", "fp", "fn")
    occurring = [item for item in per_class.items() if any(item[1][key] for key in counts)]
    return [
        [name, *(_percent(c[key]) for key in ("PQ", "SQ", "RQ")), *(str(c[key]) for key in counts)]
        for name, c in sorted(occurring, key=lambda item: -item[1]["PQ"])
    ]


def _percent(share):
    return "-" if share is None else f"{100 * share:.1f}"


def _table(header, rows):
    """Aligns the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in [header, *rows]
    )
