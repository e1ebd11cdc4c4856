"""What stands around the network, as ONNX nodes: resizing, the semantic map, the merge."""

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.pillow_resize import BLOCK, HALF
from tf_panoptic_fpn.inference.served_outputs import MERGED
from tf_panoptic_fpn.models.mask_head import MASK_SIZE
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value
from tf_panoptic_fpn.ops.panoptic_merge import MASK_THRESHOLD

ONE, ZERO = np.int32(1), np.int32(0)


def network_size(g: Graph, original: Value, short_side: int, max_long_side: int) -> Value:
    """`inference.predictor.network_size`: int64 `[2]` -> int64 `[2]`."""
    sides = original.cast("float64")
    height, width = (g.op("Gather", sides, i) for i in (0, 1))
    to_short = g.op("Div", np.float64(short_side), g.op("Min", height, width))
    to_long = g.op("Div", np.float64(max_long_side), g.op("Max", height, width))
    size = (sides * g.op("Min", to_short, to_long) + np.float64(0.5)).cast("int64")
    return g.op("Max", size, 1)


def resize_image(g: Graph, images: Value, size: Value) -> Value:
    """`data.pillow_resize.resize_images`, to the same levels.

    Args:
        g: `Graph`.
        images: uint8 `[B, H0, W0, 3]`.
        size: int64 `[2]`, (H, W).

    Returns:
        float32 `[B, 3, H, W]`, whole levels.
    """
    x = g.op("Transpose", images.cast("float32"), perm=[2, 0, 1, 3])
    x = _resize_first_axis(g, x, g.op("Gather", size, [1]))
    x = g.op("Transpose", x, perm=[2, 1, 0, 3])
    x = _resize_first_axis(g, x, g.op("Gather", size, [0]))
    return g.op("Transpose", x, perm=[1, 3, 0, 2])


def _resize_first_axis(g: Graph, x: Value, size: Value) -> Value:
    """Float32 `[n, p, q, 3]` -> float32 `[size, p, q, 3]`, whole levels."""
    sources, weights = _bands(g, g.size(x, 0), size)
    rows = g.op("Gather", g.op("Flatten", x), sources)
    levels = g.op("Floor", g.op("MatMul", weights, rows) + HALF)
    levels = g.op("Min", g.op("Max", levels, 0.0), 255.0)
    return g.slice(g.reshape(levels, -1, g.size(x, 1), g.size(x, 2), 3), 0, size, axis=0)


def _bands(g: Graph, n: Value, size: Value) -> tuple[Value, Value]:
    """`data.pillow_resize._bands`: int64 `[blocks, K]` and float32 `[blocks, BLOCK, K]`.

    In whole numbers, of which a row is 2 `size`: OpenVINO has no float64 on a processor.
    """
    reach = g.op("Max", n, size) * 2
    blocks = (size + (BLOCK - 1)) // BLOCK
    centers = g.op("Reshape", (g.range(blocks * BLOCK) * 2 + 1) * n, [-1, BLOCK, 1])
    first = g.op("Max", g.op("Gather", centers, [0], axis=1) - reach, 0) // (size * 2)
    count = (n * (BLOCK - 1) + reach) // size + 2
    sources = g.op("Squeeze", first, [2]) + g.range(count)
    offsets = (g.op("Unsqueeze", sources, [1]) * 2 + 1) * size - centers
    weights = g.op("Max", reach - g.op("Abs", offsets), 0)
    is_there = g.op("Less", g.op("Unsqueeze", sources, [1]), n)
    weights = g.where(is_there, weights, 0)
    total = g.op("Max", g.op("ReduceSum", weights, [2], keepdims=1), 1)
    return g.op("Min", sources, n - 1), weights.cast("float32") / total.cast("float32")


def semantic_map(g: Graph, logits: Value, classes: int, size: Value, original: Value) -> Value:
    """The best class of each pixel, int32 `[B, H0, W0]`, one class at a time to save memory.

    Args:
        g: `Graph`.
        logits: `[B, S, h, w]`, at a quarter of the padded canvas.
        classes: int S.
        size: int64 `[2]`, of the image on the canvas.
        original: int64 `[2]`, (H0, W0).
    """
    batch = g.size(logits, 0)
    full = g.concat([batch, [1], original])
    quadruple = np.array([1, 1, 4, 4], np.float32)

    def look_at(i: Value, best: Value, found: Value) -> tuple[list[Value], list[Value]]:
        x = g.op("Gather", logits, g.op("Unsqueeze", i, [0]), axis=1)
        x = g.op("Resize", x, None, quadruple, mode="linear")
        x = g.op("Slice", x, [0, 0], size, [2, 3])
        x = g.op("Resize", x, None, None, full, mode="linear")
        better = x > best
        return [g.op("Max", x, best), g.where(better, i.cast("int32"), found)], []

    lowest = g.op("Expand", np.float32(-np.inf), full)
    _, found = g.loop(g.constant(classes), look_at, [lowest, g.op("Expand", ZERO, full)])
    return g.op("Squeeze", found, [1])


class Merge:
    """`ops.panoptic_merge` of one image after the other.

    Args:
        g: `Graph`.
        thing_ids: data-set ids of the thing classes.
        stuff_ids: of the stuff classes.
        max_detections: int D.
        thresholds: the values of `MergeConfig`, float32, float32 and int32 `[]`.
    """

    def __init__(
        self,
        g: Graph,
        thing_ids: list[int],
        stuff_ids: list[int],
        max_detections: int,
        thresholds: tuple[Value, Value, Value],
    ) -> None:
        self.g = g
        self.thing_ids = np.array(thing_ids or [0], np.int64)  # no instance reads it
        self.stuff_ids = np.array(stuff_ids, np.int64)
        self.max_detections = max_detections
        self.num_segments = max_detections + len(stuff_ids)
        self.score_threshold, self.overlap_threshold, self.stuff_area = thresholds

    def batch(self, instances: dict[str, Value], stuff: Value) -> dict[str, Value]:
        """Merges a batch.

        Args:
            instances: BOXES (pixels of the original image), SCORES, CLASSES int64 and MASK_PROBS,
                each `[B, D, ...]`, by descending score.
            stuff: int32 `[B, H0, W0]`, 0 `other`, then stuff.

        Returns:
            The keys of the merge.
        """
        g = self.g

        def merge_image(i: Value) -> tuple[list[Value], list[Value]]:
            row = {name: g.op("Gather", value, i) for name, value in instances.items()}
            merged = self._image(row, g.op("Gather", stuff, i))
            return [], [merged[name] for name in MERGED]

        count = g.op("Squeeze", g.size(stuff, 0), [0])
        return dict(zip(MERGED, g.loop(count, merge_image, scans=len(MERGED)), strict=True))

    def _image(self, row: dict[str, Value], stuff: Value) -> dict[str, Value]:
        g, classes, scores = self.g, row[schema.CLASSES], row[schema.SCORES]
        wanted = (scores >= self.score_threshold) & (classes >= 0)
        count = g.sum(wanted.cast("int64"), 0)  # they come first
        panoptic_map, num_things, ids = self._paint_instances(row, count, stuff)
        panoptic_map, ids_of_stuff = self._paint_stuff(panoptic_map, num_things, stuff)
        # A row for each id; what was not painted has id 0, which is cut off.
        ids = g.concat([ids, ids_of_stuff]).cast("int64")
        category_ids = g.op("Gather", self.thing_ids, g.op("Max", classes, 0))
        category_ids = g.concat([category_ids, self.stuff_ids])
        segment_scores = g.concat([scores, np.ones(len(self.stuff_ids), np.float32)])
        is_thing = np.arange(self.num_segments) < self.max_detections
        is_thing = g.constant(is_thing.astype(np.int32))
        areas, boxes = self._measure(panoptic_map)
        return {
            schema.PANOPTIC_MAP: panoptic_map,
            schema.CATEGORY_IDS: self._by_id(ids, category_ids, np.int64(-1)),
            schema.IS_THING: self._by_id(ids, is_thing, ZERO).cast("bool"),
            schema.SCORES: self._by_id(ids, segment_scores, np.float32(0)),
            schema.AREAS: areas,
            schema.BOXES: boxes,
            schema.NUM_SEGMENTS: g.sum((ids > 0).cast("int32"), 0),
        }

    def _by_id(self, ids: Value, values: Value, padding: np.generic) -> Value:
        rows = self.g.full(padding, self.num_segments + 1)
        rows = self.g.op("ScatterElements", rows, ids, values)
        return self.g.slice(rows, 1, self.num_segments + 1, axis=0)

    def _paint_instances(
        self, row: dict[str, Value], count: Value, stuff: Value
    ) -> tuple[Value, Value, Value]:
        """Returns (map, number of ids, int32 `[D]` id of each instance or 0)."""
        g = self.g
        image_size = g.op("Shape", stuff)
        instances = g.constant(np.arange(self.max_detections))

        def paint(
            i: Value, panoptic_map: Value, last: Value, ids: Value
        ) -> tuple[list[Value], list[Value]]:
            box = g.op("Gather", row[schema.BOXES], i)
            start, end = (g.op("Slice", box, [a], [a + 2]) for a in (0, 2))
            # The pixels that the box touches, one at least.
            first = g.op("Min", g.op("Floor", start).cast("int64"), image_size - 1)
            after = g.op("Max", g.op("Ceil", end).cast("int64"), first + 1)
            y, x = (tuple(g.op("Gather", v, [axis]) for v in (first, after)) for axis in (0, 1))
            rows, columns = (
                self._paste_weights(start, end, span, axis) for axis, span in enumerate((y, x))
            )
            probs = g.op("Gather", row[schema.MASK_PROBS], i)
            probs = g.op("MatMul", g.op("MatMul", rows, probs), g.op("Transpose", columns))
            band = g.slice(panoptic_map, y[0], y[1], axis=0)
            window = g.slice(band, x[0], x[1], axis=1)
            mask = probs >= MASK_THRESHOLD
            free = mask & window.equals(ZERO)
            area, free_area = (g.sum(v.cast("int32"), 0, 1) for v in (mask, free))
            overlap = (area - free_area).cast("float32") / g.op("Max", area, ONE).cast("float32")
            is_painted = (overlap <= self.overlap_threshold) & (free_area > ZERO)
            last = last + is_painted.cast("int32")
            window = g.where(free & is_painted, last, window)
            band = _replaced(g, band, window, x, axis=1)
            panoptic_map = _replaced(g, panoptic_map, band, y, axis=0)
            ids = g.where(instances.equals(i) & is_painted, last, ids)
            return [panoptic_map, last, ids], []

        empty = g.op("Expand", ZERO, image_size)
        no_ids = np.zeros(self.max_detections, np.int32)
        panoptic_map, last, ids = g.loop(count, paint, [empty, ZERO, no_ids])
        return panoptic_map, last, ids

    def _paste_weights(
        self, start: Value, end: Value, span: tuple[Value, Value], axis: int
    ) -> Value:
        """`ops.masks.paste_masks` along one axis, of the pixels of a span: `[pixels, 28]`."""
        g = self.g
        start, end = (g.op("Gather", v, [axis]) for v in (start, end))
        size = end - start
        centers = (g.range(span[1] - span[0]) + span[0]).cast("float32") + 0.5
        whole = g.where(size > 0.0, size, 1.0)
        position = (centers - start) / whole * float(MASK_SIZE) - 0.5
        cells = np.arange(MASK_SIZE, dtype=np.float32)
        distances = g.op("Abs", g.op("Unsqueeze", position, [1]) - cells)
        return g.where(size > 0.0, g.op("Relu", 1.0 - distances), 0.0)

    def _paint_stuff(
        self, panoptic_map: Value, num_things: Value, stuff: Value
    ) -> tuple[Value, Value]:
        """Returns (map, int32 `[S-1]` id of each stuff class or 0)."""
        g, count = self.g, len(self.stuff_ids)
        is_free = panoptic_map.equals(ZERO)
        left_over = g.where(is_free, stuff, ZERO)
        areas = g.sum(self._by_row(left_over, count + 1), 0)
        areas = g.slice(areas, 1, count + 1, axis=0)
        is_painted = (areas >= self.stuff_area) & (areas > ZERO)
        numbers = g.op("CumSum", is_painted.cast("int32"), 0)
        ids = g.where(is_painted, numbers + num_things, ZERO)
        painted = g.op("Gather", g.concat([np.zeros(1, np.int32), ids]), left_over)
        return g.where(is_free, painted, panoptic_map), ids

    def _by_row(self, ids: Value, count: int) -> Value:
        """Int32 `[H0, count]`, how often each id stands in each row of a map."""
        g = self.g
        empty = g.full(ZERO, g.size(ids, 0), count)
        ones = g.full_like(ids, ONE)
        return g.op("ScatterElements", empty, ids, ones, axis=1, reduction="add")

    def _measure(self, panoptic_map: Value) -> tuple[Value, Value]:
        """Returns (int32 `[M]` areas, float32 `[M, 4]` tight boxes) of ids 1..M."""
        g, count = self.g, self.num_segments + 1
        by_row = self._by_row(panoptic_map, count)
        by_column = self._by_row(g.op("Transpose", panoptic_map), count)
        starts, ends = zip(*(self._extent(v) for v in (by_row, by_column)), strict=True)
        boxes = g.concat([g.op("Unsqueeze", v, [1]) for v in (*starts, *ends)], axis=1)
        tables = (g.sum(by_row, 0), boxes.cast("float32"))
        areas, boxes = (g.slice(v, 1, count, axis=0) for v in tables)
        return areas, boxes

    def _extent(self, counts: Value) -> tuple[Value, Value]:
        """The first and the last row plus 1 that has each id, int64 `[count]`; 0 without any."""
        g = self.g
        extent = g.size(counts, 0)
        rows = g.op("Unsqueeze", g.range(extent), [1])
        has = counts > ZERO
        from_end, end = (
            g.op("ReduceMax", g.where(has, v, 0), [0], keepdims=0)
            for v in (extent - rows, rows + 1)
        )
        return g.where(end > 0, extent - from_end, 0), end


def _replaced(g: Graph, x: Value, part: Value, span: tuple[Value, Value], axis: int) -> Value:
    """`x` with `part` in place of a span of an axis."""
    before = g.slice(x, 0, span[0], axis)
    after = g.slice(x, span[1], np.iinfo(np.int64).max, axis)
    return g.concat([before, part, after], axis=axis)
