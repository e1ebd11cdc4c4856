"""Outlines of masks: along the edges of the pixels, or with fewer points."""

import numpy as np

_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # x, y: right, down, left, up
Polygon = list[np.ndarray]  # the outer ring, then holes; each int64 `[n, 2]`, x and y, not closed


def outlines(mask: np.ndarray) -> list[Polygon]:
    """Traces the edges of the pixels of a mask; a pixel (x, y) has corners x..x+1 and y..y+1.

    Pixels that touch at a corner alone are apart. Rings are simple and do not cross: one that
    would meet itself at a corner becomes two. Outer rings run clockwise as seen in the image,
    holes the other way.

    Args:
        mask: bool `[H, W]`.

    Returns:
        list of polygons, one for each 4-connected part of the mask, by their first rows.
    """
    rings = [ring for walk in _walks(mask) for ring in _simple_rings(walk)]
    areas = [_signed_area(ring) for ring in rings]
    polygons = [[ring] for ring, area in zip(rings, areas, strict=True) if area > 0]
    outer_areas = [area for area in areas if area > 0]
    for ring, area in zip(rings, areas, strict=True):
        if area < 0:
            step = np.sign(ring[1] - ring[0])
            pixel = ring[0] + 0.5 * step + 0.5 * np.array([-step[1], step[0]])  # right of the edge
            around = [k for k, polygon in enumerate(polygons) if _contains(polygon[0], pixel)]
            polygons[min(around, key=lambda k: outer_areas[k])].append(ring)
    return polygons


def simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Leaves out points of a ring whose absence moves the outline by no more than a tolerance.

    Args:
        ring: `[n, 2]`, not closed.
        tolerance: float, pixels; 0 leaves out points on a line alone.

    Returns:
        `[m, 2]`, points of the ring in their order; the ring itself if less than 3 would be left.

    Reference: Douglas and Peucker, 1973, from the first point and the one that is farthest from it.
    """
    count = len(ring)
    closed = np.concatenate([ring, ring[:1]]).astype(float)
    farthest = int(np.argmax(np.linalg.norm(closed[:-1] - closed[0], axis=1)))
    kept = {0, farthest}
    waiting = [(0, farthest), (farthest, count)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            kept.add(middle)
            waiting += [(first, middle), (middle, last)]
    return ring[sorted(kept)] if len(kept) >= 3 else ring


def _walks(mask):
    """The closed walks along all edges, the mask to their right; each a list of corners (x, y)."""
    padded = np.pad(np.asarray(mask, bool), 1)
    inside = padded[1:-1, 1:-1]
    # Whether an edge starts at a corner (y, x) in each of the directions of `_STEPS`.
    edges = np.zeros((4, mask.shape[0] + 1, mask.shape[1] + 1), bool)
    edges[0, :-1, :-1] = inside & ~padded[:-2, 1:-1]
    edges[1, :-1, 1:] = inside & ~padded[1:-1, 2:]
    edges[2, 1:, 1:] = inside & ~padded[2:, 1:-1]
    edges[3, 1:, :-1] = inside & ~padded[1:-1, :-2]
    left = {(x, y, way) for way, y, x in np.argwhere(edges).tolist()}
    for y, x in np.argwhere(edges[0]).tolist():
        if (x, y, 0) not in left:
            continue
        walk, way = [], 0
        while (x, y, way) in left:
            left.remove((x, y, way))
            step_x, step_y = _STEPS[way].tolist()
            x, y = x + step_x, y + step_y
            # To the right first: where two pixels meet at a corner, it stays with its own.
            turn = next((t for t in (1, 0, 3) if (x, y, (way + t) % 4) in left), None)
            if turn != 0:
                walk.append((x, y))
            way = (way + (turn or 0)) % 4
        yield walk


def _simple_rings(walk):
    """Cuts a closed walk wherever it comes to a corner again."""
    ring, place = [], {}
    for corner in walk:
        if corner in place:
            start = place[corner]
            yield np.array(ring[start:])
            for cut in ring[start + 1 :]:
                del place[cut]
            del ring[start + 1 :]
        else:
            place[corner] = len(ring)
            ring.append(corner)
    yield np.array(ring)


def _signed_area(ring):
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    return int(np.sum(x * next_y - next_x * y)) / 2


def _contains(ring, point):
    """Whether a ring of edges along the axes is around a point that is on none of them."""
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    is_upright = x == next_x
    crosses = is_upright & (x > point[0]) & ((y > point[1]) != (next_y > point[1]))
    return bool(np.sum(crosses) % 2)


def _distances(points, first, last):
    """Distances of points from the segment between two others."""
    along = last - first
    length = along @ along
    offset = points - first
    share = np.clip(offset @ along / length, 0, 1) if length else np.zeros(len(points))
    return np.linalg.norm(offset - share[:, None] * along, axis=1)
