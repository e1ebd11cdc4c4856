"""Instances as boxes and box-frame masks, sampled from an id map or from run lengths.

A full-size mask of each instance is never made: an instance is a handful of rectangles of pixels
(one for each run) until its mask is sampled on a fixed grid over its box, some instances at a time.
"""

from collections.abc import Callable

import tensorflow as tf

from tf_panoptic_fpn import schema

# Instances sampled at a time; they share one int32 plane of H x W, a bit each.
_CHUNK = 16


def map_runs(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the runs of equal ids within the rows of a map.

    Args:
        ids: int32 `[H, W]`.

    Returns:
        `(rectangles, run_ids)`: int32 `[r, 4]`, the pixels of each run as (y1, x1, y2, x2), y2 and
        x2 not included, in the order of the rows; and int32 `[r]`.
    """
    height, width = tf.unstack(tf.shape(ids))
    breaks = tf.pad(ids[:, 1:] != ids[:, :-1], [[0, 0], [1, 0]], constant_values=True)
    breaks = tf.reshape(breaks, [-1])
    starts = tf.cast(tf.where(breaks)[:, 0], tf.int32)
    row, column = starts // width, starts % width
    lengths = tf.concat([starts[1:], [height * width]], 0) - starts
    rectangles = tf.stack([row, column, row + 1, column + lengths], -1)
    return rectangles, tf.gather(tf.reshape(ids, [-1]), starts)


def find_ids(run_ids: tf.Tensor, listed_ids: tf.Tensor) -> tf.Tensor:
    """Position of each id in a list.

    Args:
        run_ids: int32 `[r]`.
        listed_ids: int32 `[n]`, unique.

    Returns:
        int32 `[r]`; -1 for an id that is not in the list.
    """
    order = tf.argsort(listed_ids)
    # One more entry, so that an empty list can be looked up.
    ordered = tf.concat([tf.gather(listed_ids, order), [-1]], 0)
    order = tf.concat([order, [-1]], 0)
    place = tf.minimum(tf.searchsorted(ordered[:-1], run_ids), tf.shape(listed_ids)[0])
    return tf.where(tf.gather(ordered, place) == run_ids, tf.gather(order, place), -1)


def foreground_runs(runs: tf.Tensor, num_runs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the runs of COCO masks that are foreground.

    Args:
        runs: int32 `[r]`, the run lengths of the masks one after the other, down the columns,
            background first.
        num_runs: int32 `[n]`, how many each mask has.

    Returns:
        `(starts, ends, owners)`: int32 `[f]` each; the first pixel of a run and the one after its
        last, counted down the columns, and the position of its mask. No run is empty.
    """
    owners = tf.repeat(tf.range(tf.size(num_runs)), num_runs)
    first_run = tf.gather(tf.cumsum(num_runs, exclusive=True), owners)
    ends = tf.cumsum(runs)
    starts = ends - runs
    ends, starts = (value - tf.gather(starts, first_run) for value in (ends, starts))
    is_foreground = ((tf.range(tf.size(runs)) - first_run) % 2 == 1) & (runs > 0)
    return tuple(tf.boolean_mask(value, is_foreground) for value in (starts, ends, owners))


def column_rectangles(starts: tf.Tensor, ends: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """Splits runs down the columns into rectangles: a column's end, whole columns, a beginning.

    Args:
        starts, ends: int32 `[f]`, see `foreground_runs`.
        height: int32, rows of the image.

    Returns:
        int32 `[3 f, 4]`, (y1, x1, y2, x2); all first parts, then all second, then all third; some
        are empty.
    """
    first, last = starts // height, (ends - 1) // height
    top, bottom = starts % height, (ends - 1) % height + 1
    zeros, full = tf.zeros_like(first), tf.fill(tf.shape(first), height)
    is_one = first == last
    parts = (
        (top, first, tf.where(is_one, bottom, full), first + 1),
        (zeros, first + 1, full, tf.maximum(last, first + 1)),
        (zeros, last, tf.where(is_one, 0, bottom), last + 1),
    )
    return tf.concat([tf.stack(part, -1) for part in parts], 0)


def tight_boxes(
    rectangles: tf.Tensor,
    owners: tf.Tensor,
    num_instances: tf.Tensor,
    shown: tf.Tensor,
    window: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes and areas of instances within a window, from the rectangles that they consist of.

    Args:
        rectangles: int32 `[r, 4]`, (y1, x1, y2, x2).
        owners: int32 `[r]`, the instance of each; -1 for none.
        num_instances: int32, n.
        shown: int32 `[4]`, (y1, x1, y2, x2), the pixels that count.
        window: float64 `[4]`, (y1, x1, y2, x2), which may cut pixels; the boxes end with it.

    Returns:
        `(boxes, areas)`: float32 `[n, 4]` and int32 `[n]`, pixels. Both are 0 for an instance of
        which no pixel is shown.
    """
    low = tf.maximum(rectangles[:, :2], shown[:2])
    high = tf.minimum(rectangles[:, 2:], shown[2:])
    extents = tf.maximum(high - low, 0)
    areas = extents[:, 0] * extents[:, 1]
    owners = tf.where(areas > 0, owners, -1)  # negative owners are dropped
    low = tf.math.unsorted_segment_min(low, owners, num_instances)
    high = tf.math.unsorted_segment_max(high, owners, num_instances)
    areas = tf.math.unsorted_segment_sum(areas, owners, num_instances)
    window = tf.cast(window, tf.float32)
    boxes = tf.concat(
        [
            tf.maximum(tf.cast(low, tf.float32), window[:2]),
            tf.minimum(tf.cast(high, tf.float32), window[2:]),
        ],
        -1,
    )
    return tf.where(areas[:, None] > 0, boxes, 0.0), areas


def masks_from_map(
    ids: tf.Tensor, instance_ids: tf.Tensor, boxes: tf.Tensor, size: int = schema.GT_MASK_SIZE
) -> tf.Tensor:
    """Samples the mask of each instance of an id map on a fixed grid over its box.

    A cell is set where the mask, interpolated bilinearly between pixel centres, is at least 0.5 at
    the cell's centre: the rule by which Mask R-CNN makes its mask targets.

    Args:
        ids: int32 `[H, W]`.
        instance_ids: int32 `[n]`.
        boxes: float32 `[n, 4]`, yxyx, pixels of the map, each of some height and width.
        size: int, cells along each side.

    Returns:
        uint8 `[n, size, size]`, 0 or 1.
    """
    width = tf.shape(ids)[1]
    flat = tf.reshape(ids, [-1])

    def inside(start: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        chunk_ids = instance_ids[start : start + tf.shape(rows)[0]]
        return tf.gather(flat, rows * width + columns) == chunk_ids[:, None, None]

    return _sampled(boxes, tf.shape(ids), inside, size)


def masks_from_runs(
    starts: tf.Tensor,
    ends: tf.Tensor,
    owners: tf.Tensor,
    boxes: tf.Tensor,
    image_size: tf.Tensor,
    size: int = schema.GT_MASK_SIZE,
) -> tf.Tensor:
    """Samples the mask of each instance of run lengths, as `masks_from_map` does.

    Args:
        starts, ends, owners: int32 `[f]`, see `foreground_runs`; an owner may be -1, for none.
        boxes: float32 `[n, 4]`, as for `masks_from_map`.
        image_size: int32 `[2]`, (H, W).
        size: int, cells along each side.

    Returns:
        uint8 `[n, size, size]`, 0 or 1.
    """
    height = image_size[0]

    def inside(start: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        place = owners - start
        in_chunk = (place >= 0) & (place < _CHUNK)
        bits = tf.where(in_chunk, tf.bitwise.left_shift(1, tf.clip_by_value(place, 0, _CHUNK)), 0)
        plane = _plane(starts, ends, bits, image_size)
        bit = tf.bitwise.left_shift(1, tf.range(tf.shape(rows)[0]))[:, None, None]
        return tf.bitwise.bitwise_and(tf.gather(plane, columns * height + rows), bit) != 0

    return _sampled(boxes, image_size, inside, size)


def union_of_runs(
    starts: tf.Tensor, ends: tf.Tensor, owners: tf.Tensor, chosen: tf.Tensor, image_size: tf.Tensor
) -> tf.Tensor:
    """Returns which pixels the chosen instances cover.

    Args:
        starts, ends, owners: int32 `[f]`, see `foreground_runs`.
        chosen: bool `[n]`.
        image_size: int32 `[2]`, (H, W).

    Returns:
        bool `[H, W]`.
    """
    counts = tf.cast(tf.gather(chosen, owners), tf.int32)
    plane = _plane(starts, ends, counts, image_size)
    height, width = tf.unstack(image_size)
    return tf.gather(plane, tf.range(height)[:, None] + tf.range(width) * height) > 0


def _plane(
    starts: tf.Tensor, ends: tf.Tensor, values: tf.Tensor, image_size: tf.Tensor
) -> tf.Tensor:
    """The sum, at each pixel counted down the columns, of the values of the runs that cover it."""
    places = tf.concat([starts, ends], 0)
    steps = tf.concat([values, -values], 0)
    return tf.cumsum(
        tf.math.unsorted_segment_sum(steps, places, tf.reduce_prod(image_size) + 1)[:-1]
    )


def _sampled(
    boxes: tf.Tensor,
    image_size: tf.Tensor,
    inside: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    size: int,
) -> tf.Tensor:
    """Samples masks a chunk of instances at a time, so that memory does not grow with them.

    Args:
        boxes: float32 `[n, 4]`.
        image_size: int32 `[2]`.
        inside: a function of the first instance of a chunk of k and of int32 rows `[k, a, 1]` and
            columns `[k, 1, b]` of pixels, which returns bool `[k, a, b]`: whether the mask of each
            covers them.
        size: int.
    """
    count = tf.shape(boxes)[0]

    def sample(start: tf.Tensor, masks: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        y1, x1, y2, x2 = tf.unstack(boxes[start : start + _CHUNK], axis=-1)
        top, bottom, y_weight = _neighbours(y1, y2, size, image_size[0])
        left, right, x_weight = _neighbours(x1, x2, size, image_size[1])
        rows = tf.concat([top, bottom], -1)[:, :, None]
        columns = tf.concat([left, right], -1)[:, None]
        values = tf.cast(inside(start, rows, columns), tf.float32)
        values = _interpolated(values[:, :size], values[:, size:], y_weight[:, :, None])
        values = _interpolated(values[..., :size], values[..., size:], x_weight[:, None])
        return start + _CHUNK, masks.write(start // _CHUNK, tf.cast(values >= 0.5, tf.uint8))

    num_chunks = tf.maximum((count + _CHUNK - 1) // _CHUNK, 1)  # an empty one, not none
    chunks = tf.TensorArray(
        tf.uint8, num_chunks, element_shape=[None, size, size], infer_shape=False
    )
    _, chunks = tf.while_loop(
        lambda start, _: start < num_chunks * _CHUNK, sample, (0, chunks), parallel_iterations=1
    )
    return chunks.concat()


def _interpolated(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + weight * (second - first)


def _neighbours(
    start: tf.Tensor, stop: tf.Tensor, size: int, extent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The two pixels on either side of each cell centre `[k, size]`, and the second's weight."""
    cells = tf.range(size, dtype=tf.float32) + 0.5
    centres = start[:, None] + cells * ((stop - start) / size)[:, None] - 0.5
    first = tf.floor(centres)
    pixel = tf.cast(first, tf.int32)
    pixels = (tf.clip_by_value(p, 0, extent - 1) for p in (pixel, pixel + 1))
    return (*pixels, centres - first)
