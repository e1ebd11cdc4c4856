"""From shapes that may overlap, or from maps of classes and instances, to one panoptic map."""

import dataclasses

import numpy as np

from tf_panoptic_fpn.datatools.convert.source import Drawing
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.segment_map import tight_boxes
from tf_panoptic_fpn.formats.segmentation import foreground, runs_area


@dataclasses.dataclass(frozen=True)
class Shape:
    """One annotated region: `runs` as in `segmentation_runs`, `name` for the report."""

    runs: np.ndarray
    category_id: int
    is_crowd: bool
    name: str


def paint_shapes(shapes, size, categories):
    """Paints shapes into one map; a pixel belongs to the shape on top.

    From the bottom: stuff, crowds, things, and among each the larger below the smaller; of two with
    one area the later is on top. A part of a scene is drawn over what surrounds it (a tie on a
    shirt, a cup on a table, a pedestrian before a road), and people draw the outline of the whole,
    so that the smaller shape on top keeps both; the larger on top would swallow the smaller. The
    order in a file says nothing: tools sort by time or by class.

    The shapes of one stuff category become one segment.

    Args:
        shapes: list of `Shape`.
        size: `(height, width)`, ints.
        categories: `CategoryTable` of their categories.

    Returns:
        A `Drawing`; segment ids are the shapes' positions, counted from 1.
    """
    height, width = size
    by_id = categories.by_id
    stuff_ids = {}
    segment_ids = [
        i if by_id[shape.category_id].is_thing else stuff_ids.setdefault(shape.category_id, i)
        for i, shape in enumerate(shapes, 1)
    ]
    areas = [runs_area(shape.runs) for shape in shapes]
    layers = [2 - shape.is_crowd if by_id[shape.category_id].is_thing else 0 for shape in shapes]
    columns = np.zeros(width * height, np.int32)
    for i in sorted(range(len(shapes)), key=lambda i: (layers[i], -areas[i], i)):
        starts, lengths = foreground(shapes[i].runs)
        before = np.cumsum(lengths) - lengths
        pixels = np.repeat(starts - before, lengths) + np.arange(areas[i])
        columns[pixels] = segment_ids[i]
    ids = np.ascontiguousarray(columns.reshape(width, height).T)

    _, visible = tight_boxes(ids, np.arange(1, len(shapes) + 1))
    segments, left_out = {}, []
    for shape, segment_id, area in zip(shapes, segment_ids, areas, strict=True):
        if visible[segment_id - 1]:
            is_crowd = shape.is_crowd and by_id[shape.category_id].is_thing
            segments.setdefault(segment_id, (shape.category_id, is_crowd))
        else:
            reason = "hidden by others" if area else "covers no pixel"
            left_out.append(f"{shape.name}: {reason}")
    return Drawing(ids, segments, tuple(left_out))


def combine_maps(semantic, instance, categories, void=()):
    """Joins a map of classes and a map of instances.

    A segment is every pair of a thing category and an instance that occurs, and every stuff
    category whatever its instances. Things without an instance are one crowd for each category.

    Args:
        semantic: int `[H, W]`, category ids; 0, unless it is a category, is not annotated.
        instance: int `[H, W]`, 0 for none.
        categories: `CategoryTable`.
        void: values of `semantic` that stand for void.

    Returns:
        A `Drawing`.

    Raises:
        DataError: if the sizes differ, or a value is neither a category nor void.
    """
    if semantic.shape != instance.shape:
        sizes = " and ".join("{}x{}".format(*m.shape) for m in (semantic, instance))
        raise DataError(f"the maps of classes and instances must have one size. Received: {sizes}")
    by_id = categories.by_id
    pairs = semantic.astype(np.int64) << 32 | instance
    found, inverse = np.unique(pairs, return_inverse=True)
    segments, labels, stuff_ids = {}, np.zeros(len(found), np.int32), {}
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
    return Drawing(labels[inverse].reshape(semantic.shape).astype(np.int32), segments)


def fill_background(drawing, category_id):
    """Gives what is void to a stuff category.

    Args:
        drawing: `Drawing`.
        category_id: int, the category; joined with its segment if it has one already.

    Returns:
        A `Drawing`.
    """
    void = drawing.ids == 0
    if not void.any():
        return drawing
    present = [i for i, (category, _) in drawing.segments.items() if category == category_id]
    segment_id = present[0] if present else max(drawing.segments, default=0) + 1
    return dataclasses.replace(
        drawing,
        ids=np.where(void, np.int32(segment_id), drawing.ids),
        segments={**drawing.segments, segment_id: (category_id, False)},
    )
