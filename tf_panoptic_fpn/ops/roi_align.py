"""RoIAlign over the levels of a feature pyramid.

Reference: Mask R-CNN, arXiv:1703.06870, section 3; the half-cell shift ("aligned") is detectron2's.
"""

from collections.abc import Callable

import keras
from keras import ops

from tf_panoptic_fpn.ops.boxes import box_areas
from tf_panoptic_fpn.ops.kernels import must_repeat, use_tensorflow_kernels
from tf_panoptic_fpn.ops.precision import full_precision
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor, Tensors

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
# Samples a bin and axis that a roi may have in any case, for rois that reach out of the canvas.
MIN_SAMPLE_LIMIT = 32
# Bins (rows of a roi's output) that the portable way works on at a time, to bound its memory.
BINS_AT_A_TIME = 448


def roi_align(features: Tensors, boxes: Tensor, output_size: int, sampling_ratio: int) -> Tensor:
    """Resamples each roi to a small grid, from the pyramid level that fits its size.

    Each cell of the grid is the mean of bilinear samples. A sample over one feature cell outside
    the map counts as 0, the others are clamped into it. There is no gradient to `boxes`.

    Args:
        features: dict "P2".."P5" of float `[B, h, w, C]`, at strides 4..32.
        boxes: float32 `[B, R, 4]`, yxyx, canvas pixels.
        output_size: int, side of the grid.
        sampling_ratio: int, samples a cell along each axis; 0: as many as it spans feature cells,
            rounded up, along each axis of each roi.

    Returns:
        `[B, R, output_size, output_size, C]`, the dtype of `features`.
    """
    if use_tensorflow_kernels() and not must_repeat():
        return native_roi_align(features, boxes, output_size, sampling_ratio)
    return portable_roi_align(features, boxes, output_size, sampling_ratio)


def roi_levels(boxes: Tensor) -> Tensor:
    """Chooses the pyramid level of each roi: P4 from 224 pixels (root of the area), P3 from 112...

    Args:
        boxes: float32 `[..., 4]`, yxyx, canvas pixels.

    Returns:
        int32 `[...]`, 2..5.

    Reference: Feature Pyramid Networks, arXiv:1612.03144, equation 1.
    """
    scale = ops.sqrt(box_areas(boxes)) / 224
    levels = ops.floor(4 + ops.log2(scale + 1e-8))
    return ops.cast(ops.clip(levels, 2, 5), "int32")


def axis_weights(
    start: Tensor, size: Tensor, bins: int, extent: Tensor, sampling_ratio: int
) -> Tensor:
    """Computes how much each cell of one axis of a map weighs in each bin of a roi.

    RoIAlign is separable: its output is `rows @ map @ columns.T`, with such weights for both axes.

    Args:
        start: float32 `[...]`, where the roi begins; cell j has its centre at j.
        size: float32 `[...]`, length of the roi, in cells.
        bins: int, equal parts of the roi.
        extent: int or int32 scalar, cells of the map.
        sampling_ratio: int, samples a bin; 0: `size / bins` rounded up.

    Returns:
        `[..., bins, extent]`, the dtype of `start`, without gradient.
    """
    start, size = ops.stop_gradient(start), ops.stop_gradient(size)
    counts = _sample_counts(size, bins, extent, sampling_ratio)
    last = ops.cast(extent, start.dtype) - 1
    cells = ops.cast(ops.arange(extent, dtype="int32"), start.dtype)
    bin_size = size / bins
    bin_starts = start[..., None] + ops.arange(bins, dtype=start.dtype) * bin_size[..., None]
    divisor = ops.cast(ops.maximum(counts, 1), start.dtype)
    step = (bin_size / divisor)[..., None]

    def sample_weights(i: Tensor) -> Tensor:
        points = bin_starts + (ops.cast(i, start.dtype) + 0.5) * step
        counted = ops.logical_and(points >= -1, points <= last + 1)
        counted = ops.logical_and(counted, i < counts[..., None])
        distances = ops.abs(ops.clip(points, 0, last)[..., None] - cells)
        return ops.where(counted[..., None], ops.relu(1 - distances), 0)

    first = ops.convert_to_tensor(0, dtype="int32")
    _, total = ops.while_loop(
        lambda i, total: i < ops.max(counts),
        lambda i, total: (i + 1, total + sample_weights(i)),
        (first + 1, sample_weights(first)),
    )
    return ops.stop_gradient(total / divisor[..., None, None])


def portable_roi_align(
    features: Tensors, boxes: Tensor, output_size: int, sampling_ratio: int
) -> Tensor:
    """`roi_align` in `keras.ops`, as dense matrix products; XLA compiles it."""
    boxes = ops.stop_gradient(boxes)
    batch, num_rois = sides(boxes)[:2]
    chunk = max(BINS_AT_A_TIME // output_size, 1)
    num_chunks = (num_rois + chunk - 1) // chunk
    boxes = ops.pad(boxes, [[0, 0], [0, num_chunks * chunk - num_rois], [0, 0]])
    chunks = ops.transpose(ops.reshape(boxes, [batch, num_chunks, chunk, 4]), [1, 0, 2, 3])

    def pool(chunks: Tensor, *maps: Tensor) -> Tensor:
        features = dict(zip(STRIDES, maps, strict=True))

        def pool_chunk(rois: Tensor) -> Tensor:  # stacked, it has 4 axes: LiteRT slices 5 at most
            pooled = _pool_rois(features, rois, output_size, sampling_ratio)
            return ops.reshape(pooled, [batch, chunk, output_size**2 * pooled.shape[-1]])

        return ops.map(pool_chunk, chunks)

    if keras.backend.backend() == "tensorflow" and not use_tensorflow_kernels():
        # Compiled by XLA, it keeps nothing for its gradient, which needs the weights alone: what a
        # loop keeps cannot leave a program, nor could the backward pass be another one.
        pool = keras.remat(pool)
    pooled = pool(chunks, *(features[name] for name in STRIDES))
    pooled = ops.reshape(
        ops.transpose(pooled, [1, 0, 2, 3]),
        [batch, num_chunks * chunk, output_size, output_size, features["P2"].shape[-1]],
    )
    return pooled[:, :num_rois]


def _pool_rois(features: Tensors, boxes: Tensor, output_size: int, sampling_ratio: int) -> Tensor:
    """Pools `[B, r]` rois: every level for every roi, with weights 0 on the levels not its own."""
    levels = roi_levels(boxes)
    batch, num_rois = sides(boxes)[:2]
    pooled = 0
    for level, (name, stride) in enumerate(STRIDES.items(), start=2):
        feature = features[name]
        _, height, width, channels = sides(feature)
        mine = ops.cast(levels == level, boxes.dtype)
        start, size = _cell_frame(boxes, stride)
        size = size * mine[..., None]  # a long roi of another level would cost many samples
        rows = axis_weights(start[..., 0], size[..., 0], output_size, height, sampling_ratio)
        columns = axis_weights(start[..., 1], size[..., 1], output_size, width, sampling_ratio)
        rows = ops.cast(rows * mine[..., None, None], feature.dtype)
        columns = ops.cast(columns, feature.dtype)
        rows = ops.reshape(rows, [batch, num_rois * output_size, height])
        strips = ops.matmul(rows, ops.reshape(feature, [batch, height, width * channels]))
        strips = ops.reshape(strips, [batch, num_rois, output_size, width, channels])
        pooled = pooled + ops.matmul(columns[:, :, None], strips)
    return pooled


def native_roi_align(
    features: Tensors, boxes: Tensor, output_size: int, sampling_ratio: int
) -> Tensor:
    """`roi_align` with TensorFlow's sparse products, all levels in one; XLA does not compile it.

    A bin is a weighted sum of cells, so all bins are one sparse matrix times all cells of all
    levels, and the gradient is its transpose times the bins'.
    """
    import tensorflow as tf

    dtype = features["P2"].dtype
    maps = [full_precision(features[name]) for name in STRIDES]
    boxes = tf.stop_gradient(tf.cast(boxes, maps[0].dtype))
    bins = tf.constant(output_size)
    pooled = call_shared(_pool_by_product, boxes, bins, *maps, sampling_ratio=sampling_ratio)
    pooled.set_shape([*boxes.shape[:2], output_size, output_size, maps[0].shape[-1]])
    return tf.cast(pooled, dtype)


def _pool_by_product(boxes: Tensor, bins: Tensor, *maps: Tensor, sampling_ratio: int) -> Tensor:
    """Returns `[B, R, bins, bins, C]`."""
    import tensorflow as tf

    extents = tf.stack([tf.shape(x)[1:3] for x in maps])
    batch, num_rois, _ = sides(boxes)
    channels = sides(maps[0])[-1]
    weights = _bin_weights(boxes, extents, bins, sampling_ratio)

    @tf.custom_gradient
    def pool(cells: Tensor) -> tuple[Tensor, Callable]:
        def gradient(upstream: Tensor) -> Tensor:
            transposed = tf.raw_ops.SparseMatrixTranspose(input=weights, type=upstream.dtype)
            return tf.raw_ops.SparseMatrixMatMul(a=transposed, b=upstream)

        return tf.raw_ops.SparseMatrixMatMul(a=weights, b=cells), gradient

    pooled = pool(tf.concat([tf.reshape(x, [-1, channels]) for x in maps], axis=0))
    return tf.reshape(pooled, [batch, num_rois, bins, bins, channels])


def _bin_weights(boxes: Tensor, extents: Tensor, bins: Tensor, sampling_ratio: int) -> Tensor:
    """Returns how much each cell weighs in each bin, as a CSR matrix.

    Its rows are the bins (image, roi, y, x); its columns the cells (level, image, y, x).
    """
    import tensorflow as tf

    batch, num_rois = tf.unstack(tf.shape(boxes)[:2])
    # A box that is not a number has no level, and no samples either.
    levels = tf.clip_by_value(tf.reshape(roi_levels(boxes), [-1]) - 2, 0, len(STRIDES) - 1)
    strides = tf.gather(tf.constant(list(STRIDES.values()), boxes.dtype), levels)
    start, size = _cell_frame(tf.reshape(boxes, [-1, 4]), strides[:, None])
    extents_of_rois = tf.gather(extents, levels)
    # The two axes of each roi are separate: [2 rois] spans.
    start, size, extent = (tf.reshape(x, [-1]) for x in (start, size, extents_of_rois))
    first_taps, num_taps, tap_cells, tap_weights = _span_taps(
        start, size, extent, bins, sampling_ratio
    )

    # Each bin has num_taps[y] x num_taps[x] entries, the products of its taps along both axes.
    first_y, first_x = tf.unstack(tf.reshape(first_taps, [-1, 2, bins]), axis=1)
    taps_y, taps_x = tf.unstack(tf.reshape(num_taps, [-1, 2, 1, 1]), axis=1)
    image = tf.range(tf.size(levels)) // num_rois
    cells_of_image = tf.reduce_prod(extents, axis=1)
    first_cell = tf.gather(tf.cumsum(cells_of_image * batch, exclusive=True), levels)
    first_cell += image * tf.gather(cells_of_image, levels)
    of_rows = [first_y[:, :, None], first_x[:, None], taps_x, extents_of_rois[:, 1, None, None]]
    of_rows.append(first_cell[:, None, None])
    shape = [tf.size(levels), bins, bins]
    of_rows = [tf.reshape(tf.broadcast_to(x, shape), [-1]) for x in of_rows]
    num_entries = tf.reshape(tf.broadcast_to(taps_y * taps_x, shape), [-1])
    rows, entry = _ragged_range(num_entries)
    first_y, first_x, taps_x, width, first_cell = tf.unstack(
        tf.gather(tf.stack(of_rows, axis=1), rows), axis=1
    )
    tap_y, tap_x = first_y + entry // taps_x, first_x + entry % taps_x
    columns = tf.gather(tap_cells, tap_y) * width + tf.gather(tap_cells, tap_x) + first_cell
    shape = tf.stack([tf.size(num_entries), tf.reduce_sum(cells_of_image) * batch])
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(tf.stack([rows, columns], axis=1), "int64"),
        values=tf.gather(tap_weights, tap_y) * tf.gather(tap_weights, tap_x),
        dense_shape=tf.cast(shape, "int64"),
    )


def _span_taps(
    start: Tensor, size: Tensor, extent: Tensor, bins: Tensor, sampling_ratio: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the cells that the bins of some spans along one axis read, their taps.

    The taps of all spans and bins follow each other; those of a bin are neighbouring cells.

    Args:
        start, size, extent: `[S]`, see `axis_weights`.

    Returns:
        (index of each bin's first tap int32 `[S, bins]`, taps in a bin int32 `[S]`, the cell int32
        and the weight of each tap `[taps]`).
    """
    import tensorflow as tf

    counts = _sample_counts(size, bins, extent, sampling_ratio)
    bin_size = size / tf.cast(bins, size.dtype)
    step = bin_size / tf.cast(tf.maximum(counts, 1), size.dtype)
    between = tf.cast(tf.math.ceil(tf.cast(counts - 1, size.dtype) * step), "int32")
    num_taps = tf.where(counts > 0, between + 2, 0)
    first_taps = tf.cumsum(num_taps * bins, exclusive=True)[:, None]
    first_taps += tf.range(bins) * num_taps[:, None]

    spans, sample = _ragged_range(counts)
    of_samples = tf.gather(tf.stack([start, bin_size, step], axis=1), spans)
    start, bin_size, step = tf.split(of_samples, 3, axis=1)
    points = start + tf.range(bins, dtype=size.dtype) * bin_size
    points += (tf.cast(sample, size.dtype)[:, None] + 0.5) * step
    last = tf.gather(extent, spans)[:, None] - 1
    cells, weights = _bilinear_taps(points, last)
    weights /= tf.cast(tf.gather(counts, spans), size.dtype)[:, None, None]
    # The cells go up with the sample.
    first_cells = tf.math.unsorted_segment_min(cells[..., 0], spans, tf.size(counts))
    # Rounding may put the last sample on the brink of a further cell, which then weighs nothing.
    offset = tf.minimum(
        cells - tf.gather(first_cells, spans)[..., None],
        tf.gather(num_taps, spans)[:, None, None] - 1,
    )
    at = tf.gather(first_taps, spans)[..., None] + offset
    total = tf.reduce_sum(num_taps) * bins
    tap_weights = tf.math.unsorted_segment_sum(weights, at, total)
    tap_cells = tf.math.unsorted_segment_max(cells, at, total)
    # A tap that no sample reads has no cell.
    return first_taps, num_taps, tf.maximum(tap_cells, 0), tap_weights


def _ragged_range(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (row, place in its row), int32, of the elements of ragged rows of some lengths."""
    import tensorflow as tf

    # Not `RaggedRange`, which no GPU has.
    not_empty = tf.cast(tf.where(counts > 0)[:, 0], "int32")
    starts = tf.gather(tf.cumsum(counts, exclusive=True), not_empty)
    total = tf.reduce_sum(counts, keepdims=True)
    is_start = tf.scatter_nd(starts[:, None], tf.ones_like(starts), total)
    row = tf.cumsum(is_start) - 1  # of those that are not empty
    return tf.gather(not_empty, row), tf.range(total[0]) - tf.gather(starts, row)


def _bilinear_taps(points: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (cells int32, weights) `[..., 2]`: of one axis, the cells either side of points."""
    import tensorflow as tf

    last = tf.cast(last, points.dtype)
    counted = (points >= -1) & (points <= last + 1)
    clamped = tf.clip_by_value(points, 0, last)
    low = tf.floor(clamped)
    upper_weight = clamped - low
    weights = tf.stack([1 - upper_weight, upper_weight], axis=-1)
    cells = tf.stack([low, tf.minimum(low + 1, last)], axis=-1)
    return tf.cast(cells, "int32"), tf.where(counted[..., None], weights, 0)


def _cell_frame(boxes: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (start, size) `[..., 2]` of boxes in cells; cell j has its centre at j."""
    start, end = ops.split(boxes / stride - 0.5, 2, axis=-1)
    return start, end - start


def _sample_counts(size: Tensor, bins: Tensor, extent: Tensor, sampling_ratio: int) -> Tensor:
    """Returns int32 samples a bin; 0 for an empty roi."""
    if sampling_ratio > 0:
        return ops.cast(ops.where(size > 0, sampling_ratio, 0), "int32")
    counts = ops.cast(ops.ceil(size / ops.cast(bins, size.dtype)), "int32")
    # Rois on the canvas stay below the limit. It is for sizes that are not numbers:
    # when training diverges, the step must end and say so.
    limit = ops.maximum((extent + bins - 1) // bins, MIN_SAMPLE_LIMIT)
    return ops.clip(counts, 0, ops.cast(limit, "int32"))
