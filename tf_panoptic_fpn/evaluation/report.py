"""The figures of an evaluation as plain text."""

from tf_panoptic_fpn.evaluation.instance_ap import METRICS


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
