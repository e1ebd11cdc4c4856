"""From maps of ids to tints and outlines."""

from collections.abc import Sequence

import numpy as np

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.visualize.colors import RGB

TINT = 0.5
OUTLINE = (255, 255, 255)


def check_sizes(image: np.ndarray, *maps: np.ndarray) -> None:
    """Raises DataError unless the maps `[H, W]` have the size of the image."""
    for array in maps:
        if image.shape[:2] != array.shape:
            raise DataError(
                f"Image and map must have one size. Received: {image.shape[:2]} and {array.shape}"
            )


def rows_of(id_map: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Replaces each id of a map by 1 + its position in `ids`; by 0 where it is not among them.

    Args:
        id_map: int `[H, W]`.
        ids: list of unique ints.

    Returns:
        int `[H, W]`.
    """
    if len(ids) == 0:
        return np.zeros(id_map.shape, np.int64)
    ids = np.asarray(ids)
    order = np.argsort(ids)
    nearest = order[np.searchsorted(ids[order], id_map).clip(max=len(ids) - 1)]
    return np.where(ids[nearest] == id_map, nearest + 1, 0)


def outlines(rows: np.ndarray) -> np.ndarray:
    """Returns bool `[H, W]`: the pixels whose right or lower neighbour has another value."""
    edges = np.zeros(rows.shape, bool)
    edges[:, :-1] |= rows[:, 1:] != rows[:, :-1]
    edges[:-1] |= rows[1:] != rows[:-1]
    return edges


def tinted(
    image: np.ndarray, rows: np.ndarray, colors: Sequence[RGB], share: float = TINT
) -> np.ndarray:
    """Mixes colours into an image, and outlines them.

    Args:
        image: uint8 `[H, W, 3]`.
        rows: int `[H, W]`, 1 + the position of a pixel's colour in `colors`; 0 stays clear.
        colors: list of (red, green, blue).
        share: of the colour, in [0, 1].

    Returns:
        uint8 `[H, W, 3]`.
    """
    palette = np.array([(0, 0, 0), *colors], np.float32)
    weight = np.where(rows > 0, np.float32(share), np.float32(0))[..., None]
    return (image * (1 - weight) + palette[rows] * weight + 0.5).astype(np.uint8)
