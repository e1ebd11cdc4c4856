"""From shapes that may overlap, or from maps of classes and instances, to one panoptic map."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.convert.runs import foreground, mask_runs, runs_area, runs_mask
from tf_panoptic_fpn.convert.source import Drawing
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.masks.segment_map import tight_boxes


@dataclasses.dataclass(frozen=True)
class Shape:
    """One annotated region: `runs` as in `segmentation_runs`, `name` for the report.

    Without a category, it is void, or not annotated, and hides what lies below it. Of a higher
    `z_order` it lies above others whatever their areas.
    """

    runs: np.ndarray
    category_id: int | None
    is_crowd: bool
    name: str
    is_void: bool = False
    z_order: int = 0


def merge_shapes(parts: Sequence[Shape], size: tuple[int, int]) -> Shape:
    """Makes one shape of several of one category; `size` is `(height, width)` of the image."""
    first, *others = parts
    if not others:
        return first
    return dataclasses.replace(
        first,
        runs=mask_runs(np.any([runs_mask(part.runs, size) for part in parts], axis=0)),
        is_crowd=any(part.is_crowd for part in parts),
        name=", ".join(part.name for part in parts),
    )


def paint_shapes(
    shapes: Sequence[Shape], size: tuple[int, int], categories: CategoryTable
) -> Drawing:
    """Paints shapes into one map; a pixel belongs to the shape on top.

    From the bottom: stuff, crowds, things, and among each the larger below the smaller, unless the
    annotation has an order; of two with one area the later is on top. A part of a scene is drawn
    over what surrounds it (a tie on a shirt, a cup on a table, a pedestrian before a road), and
    people draw the outline of the whole, so that the smaller shape on top keeps both; the larger on
    top would swallow the smaller. The order in a file says nothing: tools sort by time or by class.

    The shapes of one stuff category become one segment. Those without a category lie among things.

    Args:
        shapes: any number of them.
        size: `(height, width)`.
        categories: theirs.

    Returns:
        A `Drawing`; segment ids are the shapes' positions, counted from 1.
    """
    height, width = size
    stuff_ids: dict[int | None, int] = {}
    is_stuff = {category.id for category in categories.stuff}.__contains__
    segment_ids = [
        stuff_ids.setdefault(shape.category_id, i) if is_stuff(shape.category_id) else i
        for i, shape in enumerate(shapes, 1)
    ]
    areas = [runs_area(shape.runs) for shape in shapes]
    layers = [0 if is_stuff(shape.category_id) else 2 - shape.is_crowd for shape in shapes]

    def order(i):
        return layers[i], shapes[i].z_order, -areas[i], i

    columns = np.zeros(width * height, np.int32)
    for i in sorted(range(len(shapes)), key=order):
        starts, lengths = foreground(shapes[i].runs)
        before = np.cumsum(lengths) - lengths
        pixels = np.repeat(starts - before, lengths) + np.arange(areas[i])
        columns[pixels] = segment_ids[i]
    ids = np.ascontiguousarray(columns.reshape(width, height).T)

    _, visible = tight_boxes(ids, np.arange(1, len(shapes) + 1))
    segments: dict[int, tuple[int, bool]] = {}
    left_out = []
    is_void, is_empty = np.zeros((2, len(shapes) + 1), bool)
    for shape, segment_id, area in zip(shapes, segment_ids, areas, strict=True):
        if not visible[segment_id - 1]:
            reason = "hidden by others" if area else "covers no pixel"
            left_out.append(f"{shape.name}: {reason}")
        elif shape.category_id is None:
            is_empty[segment_id] = True
            is_void[segment_id] = shape.is_void
        else:
            is_crowd = shape.is_crowd and not is_stuff(shape.category_id)
            segments.setdefault(segment_id, (shape.category_id, is_crowd))
    void = is_void[ids] if is_void.any() else None
    if is_empty.any():
        ids = np.where(is_empty[ids], np.int32(0), ids)
    return Drawing(ids, segments, tuple(left_out), void)


def combine_maps(
    semantic: np.ndarray, instance: np.ndarray, categories: CategoryTable, void: Sequence[int] = ()
) -> Drawing:
    """Joins a map of classes and a map of instances.

    A segment is every pair of a thing category and an instance that occurs, and every stuff
    category whatever its instances. Things without an instance are one crowd for each category.

    Args:
        semantic: int `[H, W]`, category ids; 0, unless it is a category, is not annotated.
        instance: int `[H, W]`, 0 for none.
        categories: those of `semantic`.
        void: values of `semantic` that stand for void.

    Raises:
        DataError: if the sizes differ, or a value is neither a category nor void.
    """
    if semantic.shape != instance.shape:
        sizes = " and ".join("{}x{}".format(*m.shape) for m in (semantic, instance))
        raise DataError(f"the maps of classes and instances must have one size. Received: {sizes}")
    by_id = categories.by_id
    pairs = semantic.astype(np.int64) << 32 | instance
    found, inverse = np.unique(pairs, return_inverse=True)
    segments, labels = {}, np.zeros(len(found), np.int32)
    stuff_ids: dict[int, int] = {}
    is_void = np.isin(found >> 32, void)
    for position, (category_id, number) in enumerate(
        zip(found >> 32, found & 0xFFFFFFFF, strict=True)
    ):
        category_id, number = int(category_id), int(number)
        if category_id in void or (category_id == 0 and 0 not in by_id):
            continue
        if category_id not in by_id:
            raise DataError(f"a class must be a category id or void. Received: {category_id}")
        is_thing = by_id[category_id].is_thing
        segment_id = position + 1
        if not is_thing:
            segment_id = stuff_ids.setdefault(category_id, segment_id)
        labels[position] = segment_id
        segments[segment_id] = (category_id, is_thing and number == 0)
    ids = labels[inverse].reshape(semantic.shape).astype(np.int32)
    marked = is_void[inverse].reshape(semantic.shape) if is_void.any() else None
    return Drawing(ids, segments, void=marked)


def fill_background(drawing: Drawing, category_id: int) -> Drawing:
    """Gives what is not annotated, and not void by the annotation either, to a stuff category.

    Args:
        drawing: of the annotations.
        category_id: joined with its segment if it has one already.
    """
    rest = drawing.ids == 0
    if drawing.void is not None:
        rest &= ~drawing.void
    if not rest.any():
        return drawing
    present = [i for i, (category, _) in drawing.segments.items() if category == category_id]
    segment_id = present[0] if present else max(drawing.segments, default=0) + 1
    return dataclasses.replace(
        drawing,
        ids=np.where(rest, np.int32(segment_id), drawing.ids),
        segments={**drawing.segments, segment_id: (category_id, False)},
    )
