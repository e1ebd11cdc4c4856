"""Area, box and crowd of a segment or an instance, compared with its mask."""

from collections.abc import Sequence

from tf_panoptic_fpn.categories import Category
from tf_panoptic_fpn.formats.json_file import Entry
from tf_panoptic_fpn.formats.records import Instance, Segment


def compare_with_mask(
    entry: Entry,
    read: Segment | Instance,
    category: Category,
    area: int,
    box: Sequence[float],
    where: str,
    area_tolerance: float = 0,
    box_tolerance: float = 1,
) -> tuple[list[tuple[str, str]], Entry]:
    """Compares what a JSON says of a segment or an instance with its mask.

    Args:
        entry: of the JSON.
        read: what was made of it; what could not be read is None.
        category: its own.
        area: pixels of the mask, above 0.
        box: the mask's x, y, width and height.
        where: names the segment.
        area_tolerance, box_tolerance: pixels.

    Returns:
        `(breaches, values)`: pairs of rule and text; and dict of `area`, `bbox` and `iscrowd` as
        they should be, those of the mask where what was read is breached.
    """
    pairs = [(f"no_{name}", text) for name, text in _left_out(entry, area, box)]
    values = {"area": area, "bbox": list(box), "iscrowd": int(read.is_crowd)}
    if read.is_crowd and not category.is_thing:
        values["iscrowd"] = 0
        pairs.append(("crowd_stuff", category.name))
    if read.area is not None:
        if abs(read.area - area) > area_tolerance:
            pairs.append(("area", f"{read.area} in the JSON, {area} in the mask"))
        else:
            values["area"] = read.area
    if read.bbox_xywh is not None and min(read.bbox_xywh[2:]) > 0:
        stated = list(read.bbox_xywh)
        # Corners, since the far side of a box is wrong if its place is.
        distances = [abs(a - b) for a, b in zip(_corners(stated), _corners(box), strict=True)]
        if max(distances) > box_tolerance:
            pairs.append(("box", f"{stated} in the JSON, {list(box)} of the mask"))
        else:
            values["bbox"] = stated
    return [(rule, f"{where}: {text}") for rule, text in pairs], values


def _left_out(entry, area, box):
    if entry.get("area") is None:
        yield "area", f"{area} in the mask"
    if entry.get("bbox") is None:
        yield "box", f"{list(box)} of the mask"
    if "iscrowd" not in entry:
        yield "iscrowd", "0 is meant"


def _corners(box):
    x, y, width, height = box
    return x, y, x + width, y + height
