"""Area, box and crowd of a segment or an instance, compared with its mask."""

from tf_panoptic_fpn.datatools.validate.document import is_thing


def compare_with_mask(entry, category, area, box, where, area_tolerance=0, box_tolerance=1):
    """Compares what a JSON says of a segment or an instance with its mask.

    Args:
        entry: dict of the JSON; its `area`, `bbox` and `iscrowd` may be missing or be anything.
        category: dict, the entry of its category.
        area: int, pixels of the mask, above 0.
        box: the mask's x, y, width and height, numbers.
        where: str, names the segment.
        area_tolerance, box_tolerance: pixels.

    Returns:
        `(breaches, corrected)`: pairs of rule and text; and the entry, in which what is breached is
        that of the mask.
    """
    breaches = {
        "area": _area_breaches(entry, area, area_tolerance),
        "bbox": _box_breaches(entry, list(box), box_tolerance),
        "iscrowd": _crowd_breaches(entry, category),
    }
    is_crowd = bool(entry.get("iscrowd") in (0, 1) and entry["iscrowd"] and is_thing(category))
    of_mask = {"area": area, "bbox": list(box), "iscrowd": int(is_crowd)}
    corrections = {key: of_mask[key] for key, found in breaches.items() if found}
    pairs = [(rule, f"{where}: {text}") for found in breaches.values() for rule, text in found]
    return pairs, {**entry, **corrections}


def _area_breaches(entry, area, tolerance):
    if "area" not in entry:
        return [("no_area", f"{area} in the mask")]
    stated = entry["area"]
    if not _is_number(stated) or stated < 0:
        return [("bad_area", f"{stated!r:.40}")]
    if abs(stated - area) > tolerance:
        return [("area", f"{stated} in the JSON, {area} in the mask")]
    return []


def _box_breaches(entry, box, tolerance):
    if "bbox" not in entry:
        return [("no_box", f"{box} of the mask")]
    stated = entry["bbox"]
    is_box = isinstance(stated, list) and len(stated) == 4 and all(map(_is_number, stated))
    if not is_box or min(stated[2:]) <= 0:
        return [("bad_box", f"{stated!r:.80}")]
    # Corners, since the far side of a box is wrong if its place is.
    distances = [abs(a - b) for a, b in zip(_corners(stated), _corners(box), strict=True)]
    if max(distances) > tolerance:
        return [("box", f"{stated} in the JSON, {box} of the mask")]
    return []


def _crowd_breaches(entry, category):
    if "iscrowd" not in entry:
        return [("no_iscrowd", "0 is meant")]
    if entry["iscrowd"] not in (0, 1):
        return [("iscrowd", f"{entry['iscrowd']!r:.40}")]
    return (
        [("crowd_stuff", category["name"])] if entry["iscrowd"] and not is_thing(category) else []
    )


def _is_number(value):
    """Whether a JSON value is a finite number."""
    # Ints may be too large for `math.isfinite`; a comparison with NaN is False.
    return type(value) in (int, float) and -1e15 < value < 1e15


def _corners(box):
    x, y, width, height = box
    return x, y, x + width, y + height
