"""Pictures of panoptic and semantic maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.visualize.colors import RGB, segment_colors
from tf_panoptic_fpn.visualize.fonts import drawable_name
from tf_panoptic_fpn.visualize.labels import Label, deepest_points, draw_labels, label_text
from tf_panoptic_fpn.visualize.layout import enlarge, enlarged_size
from tf_panoptic_fpn.visualize.tint import OUTLINE, check_sizes, outlines, rows_of, tinted

OTHER = (128, 128, 128)


def draw_panoptic(
    image: np.ndarray,
    panoptic_map: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    categories: CategoryTable,
) -> np.ndarray:
    """Draws the segments of a panoptic map over its image.

    Each segment is tinted with the colour of its category (things in a shade of their own), has a
    white outline and a label: the name, and the score where it has one. A label that finds no room
    near its segment is left out, and so are those of the smallest segments once labels hide a fifth
    of the picture.

    Args:
        image: uint8 `[H, W, 3]`.
        panoptic_map: int `[H, W]`, segment id of each pixel; ids that are not listed stay clear.
        segments: list of dicts `id`, `category_id` and, if known, `score` and `iscrowd`.
        categories: `CategoryTable`.

    Returns:
        uint8 `[H', W', 3]`; H', W' are H, W, enlarged to a shorter side of 480 if below.

    Raises:
        DataError: if the sizes differ or a category is unknown.
    """
    colors = segment_colors(segments, categories)
    by_id = categories.by_id
    texts = []
    for segment in segments:
        category = by_id[segment["category_id"]]
        score = segment.get("score") if category.is_thing else None
        texts.append(label_text(category, score, bool(segment.get("iscrowd"))))
    return _draw_map(image, panoptic_map, [s["id"] for s in segments], colors, texts)


def draw_semantic(
    image: np.ndarray, semantic_map: np.ndarray, categories: CategoryTable
) -> np.ndarray:
    """Draws a semantic map over its image: one tint and one label a class.

    Args:
        image: uint8 `[H, W, 3]`.
        semantic_map: int `[H, W]`, semantic class of each pixel; -1 stays clear, and 255
            unless it is a class.
        categories: `CategoryTable`.

    Returns:
        As `draw_panoptic`.

    Raises:
        DataError: if the sizes differ, or a class does not exist.
    """
    classes = categories.semantic_classes
    names = {c.id: drawable_name(c) for c in categories.categories}
    colors = segment_colors([{"category_id": i} for i in classes], categories)
    drawn = {k: (names[i], color) for (i, k), color in zip(classes.items(), colors, strict=True)}
    if categories.semantic_things == "other":
        drawn[0] = "other (things)", OTHER
    clear = {schema.IGNORED, schema.VOID_LABEL} - set(drawn)
    present = [k for k in np.unique(semantic_map).tolist() if k not in clear]
    unknown = sorted(set(present) - set(drawn))
    if unknown:
        raise DataError(f"Semantic classes must be in 0..{max(drawn)}. Received: {unknown}")
    texts, colors = zip(*(drawn[k] for k in present), strict=True) if present else ((), ())
    return _draw_map(image, semantic_map, present, colors, texts)


def _draw_map(
    image: np.ndarray,
    id_map: np.ndarray,
    ids: Sequence[int],
    colors: Sequence[RGB],
    texts: Sequence[str],
) -> np.ndarray:
    """Tints, outlines and labels the parts of a map that have one of `ids`."""
    image, id_map = np.asarray(image), np.asarray(id_map)
    check_sizes(image, id_map)
    size = enlarged_size(id_map.shape)
    rows = enlarge(rows_of(id_map, ids), size)
    picture = tinted(enlarge(image, size), rows, colors)
    picture[outlines(rows)] = OUTLINE

    anchors = deepest_points(rows, len(ids))
    areas = np.bincount(rows.ravel(), minlength=len(ids) + 1)[1:]
    largest_first = np.argsort(-areas, kind="stable")
    canvas = Image.fromarray(picture)
    draw_labels(
        canvas,
        [Label(texts[i], colors[i], anchors[i]) for i in largest_first if anchors[i] is not None],
    )
    return np.array(canvas)
