"""The predictions of tiles become one panoptic map.

Each tile decides the middle of what it sees, up to the cuts of the `Grid`; so no pixel is decided
by a tile whose border is nearer than half of the overlap. What two neighbours see of their overlap
says which of their instances are one.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from tf_panoptic_fpn.large_images.disk_map import DiskMap
from tf_panoptic_fpn.large_images.grid import Grid, Tile
from tf_panoptic_fpn.masks.components import label_parts
from tf_panoptic_fpn.masks.segment_map import tight_boxes

JOIN_SHARE = 0.5  # as of the IoU that matches segments in panoptic quality


class Stitcher:
    """Joins tiles; memory grows with the number of instances and not with the image.

    A label is a number of an instance from 1 on, minus a number of a stuff category from 1 on, or 0
    for void. Tiles come in the order of the grid.

    Args:
        grid: `Grid`.
        num_stuff: int, the number of stuff categories.
        folder: path of a folder for files that are of no use afterwards.
    """

    def __init__(self, grid: Grid, num_stuff: int, folder: str | os.PathLike) -> None:
        self._grid = grid
        self._num_stuff = num_stuff
        self._folder = pathlib.Path(folder)
        self._labels = DiskMap(self._folder / "labels", (grid.rows.length, grid.columns.length))
        self._left = np.zeros((0, 0), np.int32)  # labels of the tile to the left
        self._parents = [0]  # of each label from 1 on: another label of the same instance
        self._categories = [0]
        self._scores = [0.0]
        self._areas = [np.zeros(1, np.int64)]  # by label, of what is decided
        self._boxes = [np.zeros((1, 4), np.int64)]  # yxyx
        self._stuff_areas = np.zeros(num_stuff + 1, np.int64)
        self._stuff_boxes = np.zeros((num_stuff + 1, 4), np.int64)

    def add(
        self, tile: Tile, labels: np.ndarray, category_ids: Sequence[int], scores: Sequence[float]
    ) -> None:
        """Adds a tile.

        Args:
            tile: `Tile`, the next one of the grid.
            labels: int32 `[bottom - top, right - left]`, with instances 1..n.
            category_ids: `[n]`, of the instances.
            scores: float `[n]`.
        """
        first = len(self._parents)
        labels = np.where(labels > 0, labels + (first - 1), labels).astype(np.int32)
        self._parents += range(first, first + len(scores))
        self._categories += category_ids
        self._scores += scores
        rows, columns = self._grid.rows, self._grid.columns
        if tile.column:
            start, cut = tile.left - columns.starts[tile.column - 1], columns.cuts[tile.column]
            shared = columns.ends[tile.column - 1] - tile.left
            self._join(self._left[:, start:].T, labels[:, :shared].T, cut - tile.left)
        self._left = labels
        above = self._folder / f"above_{tile.column}.npy"
        if tile.row:
            shared = rows.ends[tile.row - 1] - tile.top
            self._join(np.load(above), labels[:shared], rows.cuts[tile.row] - tile.top)
        if tile.row + 1 < len(rows.starts):
            np.save(above, labels[rows.starts[tile.row + 1] - tile.top :])
        self._decide(tile, labels, first)

    def _decide(self, tile: Tile, labels: np.ndarray, first: int) -> None:
        """Writes the part of the map that is the tile's, and measures it."""
        top, bottom = self._grid.rows.cuts[tile.row : tile.row + 2]
        left, right = self._grid.columns.cuts[tile.column : tile.column + 2]
        core = labels[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left]
        self._labels.write(top, left, core)
        offset = np.array([top, left, top, left])
        boxes, areas = tight_boxes(core, np.arange(first, len(self._parents)))
        self._areas.append(areas)
        self._boxes.append(boxes.astype(np.int64) + offset)
        boxes, areas = tight_boxes(core, -np.arange(self._num_stuff + 1))
        seen = areas > 0
        known = seen & (self._stuff_areas > 0)
        boxes = boxes.astype(np.int64) + offset
        self._stuff_boxes[seen & ~known] = boxes[seen & ~known]
        self._stuff_boxes[known] = _union(self._stuff_boxes[known], boxes[known])
        self._stuff_areas += areas

    def _join(self, first: np.ndarray, second: np.ndarray, cut: int) -> None:
        for a, b in same_instances(first, second, cut, self._categories):
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low

    def _root(self, label: int) -> int:
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    def finish(self, stuff_ids: Sequence[int], stuff_area: int) -> "StitchedMap":
        """Numbers the segments as the merge does: things by descending score, then stuff.

        Args:
            stuff_ids: `[num_stuff]`, category ids.
            stuff_area: int; stuff with fewer pixels in the whole image is dropped.

        Returns:
            A `StitchedMap`.
        """
        roots = np.array([self._root(label) for label in range(len(self._parents))])
        count = len(roots)
        label_areas, label_boxes = np.concatenate(self._areas), np.concatenate(self._boxes)
        areas = np.zeros(count, np.int64)
        np.add.at(areas, roots, label_areas)
        boxes = np.zeros((count, 4), np.int64)
        boxes[:, :2] = max(self._labels.shape)
        seen = label_areas > 0
        np.minimum.at(boxes[:, :2], roots[seen], label_boxes[seen, :2])
        np.maximum.at(boxes[:, 2:], roots[seen], label_boxes[seen, 2:])
        scores = np.zeros(count)
        np.maximum.at(scores, roots, self._scores)
        kept = np.flatnonzero(areas)
        kept = kept[np.argsort(-scores[kept], kind="stable")]

        segments: list[dict] = []
        numbers = np.zeros(count, np.int32)
        numbers[kept] = np.arange(1, len(kept) + 1)
        for label in kept.tolist():
            entry = _segment(segments, self._categories[label], areas[label], boxes[label])
            segments.append({**entry, "score": float(scores[label])})
        stuff_numbers = np.zeros(self._num_stuff + 1, np.int32)
        for stuff, category_id in enumerate(stuff_ids, 1):
            if self._stuff_areas[stuff] >= max(stuff_area, 1):
                area, box = self._stuff_areas[stuff], self._stuff_boxes[stuff]
                segments.append(_segment(segments, category_id, area, box))
                stuff_numbers[stuff] = len(segments)
        ids_of_labels = np.concatenate([stuff_numbers[:0:-1], numbers[roots]])
        return StitchedMap(self._labels, ids_of_labels, self._num_stuff, segments)

    def close(self) -> None:
        self._labels.close()


class StitchedMap:
    """A panoptic map on the disk.

    Attributes:
        shape: (H, W).
        segments: list of dicts, as `Result.segments`; the score of a thing is the highest of its
            parts.
    """

    def __init__(
        self, labels: DiskMap, ids_of_labels: np.ndarray, num_stuff: int, segments: list[dict]
    ) -> None:
        self.shape = labels.shape
        self.segments = segments
        self._labels = labels
        self._ids = ids_of_labels  # of the labels from -num_stuff on
        self._num_stuff = num_stuff

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns segment ids, int32 `[bottom - top, right - left]`; 0 is void."""
        return self._ids[self._labels.read(top, bottom, left, right) + self._num_stuff]


def same_instances(
    first: np.ndarray, second: np.ndarray, cut: int, categories: Sequence[int]
) -> list[tuple[int, int]]:
    """Finds the instances that are one, by what two tiles see of the strip that they share.

    Compared are connected parts, so that two arms of an instance that are one beyond the strip are
    both found. Two parts of one category are the same where their IoU is 1/2 or more; or where the
    smaller crosses the cut, and half of it or more is of the other: there one tile saw little of
    the instance. What only reaches into the strip from its edge is not joined to a neighbour
    that covers it.

    Args:
        first, second: int `[n, m]`, labels, of which those above 0 are instances; the first tile
            decides the rows before the cut, the second one those from it on.
        cut: int, a row, 1..n - 1.
        categories: `[l]`, of each label.

    Returns:
        list of pairs: a label of the first, one of the second.
    """
    first, second = np.maximum(first, 0), np.maximum(second, 0)
    (parts_a, labels_a), (parts_b, labels_b) = label_parts(first), label_parts(second)
    area_a = np.bincount(parts_a.ravel())
    area_b = np.bincount(parts_b.ravel())
    both = (first > 0) & (second > 0)
    keys, shared = np.unique(parts_a[both] * len(area_b) + parts_b[both], return_counts=True)
    a, b = np.divmod(keys, len(area_b))
    smaller = np.minimum(area_a[a], area_b[b])
    crosses = np.where(
        area_a[a] <= area_b[b], _crossing(parts_a, cut)[a], _crossing(parts_b, cut)[b]
    )
    is_same = shared >= JOIN_SHARE * (area_a[a] + area_b[b] - shared)
    is_same |= crosses & (shared >= JOIN_SHARE * smaller)
    pairs = zip(labels_a[a[is_same]].tolist(), labels_b[b[is_same]].tolist(), strict=True)
    return [pair for pair in pairs if categories[pair[0]] == categories[pair[1]]]


def _crossing(parts: np.ndarray, cut: int) -> np.ndarray:
    """Bool, for each part, whether it lies on both sides of the cut."""
    before, after = (np.zeros(parts.max() + 1, bool) for _ in range(2))
    before[parts[cut - 1]] = True
    after[parts[cut]] = True
    return before & after


def _union(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.minimum(boxes[:, :2], others[:, :2])
    return np.concatenate([low, np.maximum(boxes[:, 2:], others[:, 2:])], axis=1)


def _segment(before: list[dict], category_id: int, area: int, box: np.ndarray) -> dict:
    top, left, bottom, right = (int(value) for value in box)
    return {
        "id": len(before) + 1,
        "category_id": int(category_id),
        "area": int(area),
        "bbox": [left, top, right - left, bottom - top],
    }
