"""RoIAlign over the levels of a feature pyramid.

Reference: Mask R-CNN, arXiv:1703.06870, section 3; the half-cell shift ("aligned") is detectron2's.
"""

from keras import ops

from tf_panoptic_fpn.ops.boxes import box_areas
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.precision import full_dtype

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
# Samples a bin and axis that a roi may have in any case, for rois that reach out of the canvas.
MIN_SAMPLE_LIMIT = 32
# Bins (rows of a roi's output) that the portable way works on at a time, to bound its memory.
BINS_AT_A_TIME = 448
# Elements of the samples that the native way holds at a time: 64 MiB.
SAMPLES_AT_A_TIME = 2**24


def roi_align(features, boxes, output_size, sampling_ratio):
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
    # TensorFlow's kernel gives float32 whatever it is given.
    dtypes = {full_dtype(x.dtype) for x in (features["P2"], boxes)}
    if use_tensorflow_kernels() and dtypes == {"float32"}:
        return native_roi_align(features, boxes, output_size, sampling_ratio)
    return portable_roi_align(features, boxes, output_size, sampling_ratio)


def roi_levels(boxes):
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


def axis_weights(start, size, bins, extent, sampling_ratio):
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

    def sample_weights(i):
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


def portable_roi_align(features, boxes, output_size, sampling_ratio):
    """`roi_align` in `keras.ops`, as dense matrix products; XLA compiles it."""
    boxes = ops.stop_gradient(boxes)
    batch, num_rois = ops.shape(boxes)[:2]
    chunk = max(BINS_AT_A_TIME // output_size, 1)
    num_chunks = (num_rois + chunk - 1) // chunk
    boxes = ops.pad(boxes, [[0, 0], [0, num_chunks * chunk - num_rois], [0, 0]])
    chunks = ops.transpose(ops.reshape(boxes, [batch, num_chunks, chunk, 4]), [1, 0, 2, 3])
    pooled = ops.map(lambda rois: _pool_rois(features, rois, output_size, sampling_ratio), chunks)
    channels = pooled.shape[-1]
    pooled = ops.reshape(
        ops.transpose(pooled, [1, 0, 2, 3, 4, 5]),
        [batch, num_chunks * chunk, output_size, output_size, channels],
    )
    return pooled[:, :num_rois]


def _pool_rois(features, boxes, output_size, sampling_ratio):
    """Pools `[B, r]` rois: every level for every roi, with weights 0 on the levels not its own."""
    levels = roi_levels(boxes)
    batch, num_rois = ops.shape(boxes)[:2]
    pooled = 0
    for level, (name, stride) in enumerate(STRIDES.items(), start=2):
        feature = features[name]
        _, height, width, channels = ops.shape(feature)
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


def native_roi_align(features, boxes, output_size, sampling_ratio):
    """`roi_align` with TensorFlow's `crop_and_resize`; XLA does not compile it.

    The i-th samples of all cells of a roi form a regular grid, which is one crop; a roi is the mean
    of as many crops as a cell has samples.
    """
    import tensorflow as tf

    dtype = features["P2"].dtype
    boxes = tf.stop_gradient(boxes)
    batch, num_rois = tf.shape(boxes)[0], tf.shape(boxes)[1]
    rois = tf.reshape(boxes, [-1, 4])
    images = tf.repeat(tf.range(batch), num_rois)
    levels = roi_levels(rois)

    @tf.custom_gradient
    def pool(*maps):
        channels = maps[0].shape[-1]
        pooled = tf.zeros([batch * num_rois, output_size, output_size, channels])
        plans = []
        for level, (stride, level_map) in enumerate(zip(STRIDES.values(), maps, strict=True), 2):
            numbers = tf.where(levels == level)
            plan = _LevelPlan(rois, images, numbers, stride, level_map, output_size, sampling_ratio)
            plans.append(plan)
            pooled = plan.pool(level_map, pooled)

        def gradient(upstream):
            return [plan.gradient(upstream) for plan in plans]

        return pooled, gradient

    pooled = pool(*(tf.cast(features[name], "float32") for name in STRIDES))
    shape = [batch, num_rois, output_size, output_size, pooled.shape[-1]]
    pooled = tf.reshape(pooled, shape)
    pooled = tf.ensure_shape(pooled, [*boxes.shape[:2], *pooled.shape[2:]])
    return tf.cast(pooled, dtype)


class _LevelPlan:
    """The samples that the rois of one level need."""

    def __init__(self, rois, images, numbers, stride, level_map, output_size, sampling_ratio):
        import tensorflow as tf

        self.output_size = output_size
        self.map_shape = tf.shape(level_map)
        start, size = _cell_frame(tf.gather_nd(rois, numbers), stride)
        ny = _sample_counts(size[:, 0], output_size, self.map_shape[1], sampling_ratio)
        nx = _sample_counts(size[:, 1], output_size, self.map_shape[2], sampling_ratio)
        not_empty = tf.where(ny * nx > 0)
        self.numbers = tf.gather_nd(numbers, not_empty)
        self.images = tf.gather_nd(images, self.numbers)
        self.start = tf.gather_nd(start, not_empty)
        self.bin_size = tf.gather_nd(size, not_empty) / output_size
        self.counts = tf.gather_nd(tf.stack([ny, nx], axis=1), not_empty)
        self.num_samples = tf.reduce_prod(self.counts, axis=1)
        limit = max(SAMPLES_AT_A_TIME // (output_size**2 * level_map.shape[-1]), 1)
        self.chunk_of_roi = tf.cumsum(self.num_samples, exclusive=True) // limit
        self.num_chunks = tf.reduce_max(tf.concat([self.chunk_of_roi + 1, [0]], axis=0))

    def pool(self, level_map, pooled):
        """Returns `pooled` `[rois, out, out, C]` with the rows of this level filled in."""
        import tensorflow as tf

        # With its edge repeated once, the map extrapolates as RoIAlign does: clamped up to one cell
        # outside, 0 beyond.
        padded = tf.pad(level_map, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        last = tf.cast(tf.tile(self.map_shape[1:3] + 1, [2]), "float32")

        def fill(chunk, pooled):
            members = tf.cast(tf.where(self.chunk_of_roi == chunk)[:, 0], "int32")
            owners, start = self._samples(members)
            rois = tf.gather(members, owners)
            end = start + (self.output_size - 1) * tf.gather(self.bin_size, rois)
            samples = tf.image.crop_and_resize(
                padded,
                (tf.concat([start, end], axis=1) + 1) / last,
                tf.gather(self.images, rois),
                [self.output_size, self.output_size],
            )
            sums = tf.math.segment_sum(samples, owners)
            num_samples = tf.cast(tf.gather(self.num_samples, members), "float32")
            means = sums / num_samples[:, None, None, None]
            at = tf.gather(self.numbers, members)
            return chunk + 1, tf.tensor_scatter_nd_update(pooled, at, means)

        return tf.while_loop(
            lambda chunk, pooled: chunk < self.num_chunks, fill, (tf.constant(0), pooled)
        )[1]

    def gradient(self, upstream):
        """Returns the gradient `[B, h, w, C]` of this level's map from that of `pooled`.

        Not by `crop_and_resize`'s own gradient: the threads of its CPU kernel add to the same cells
        without a lock and lose terms.
        """
        import tensorflow as tf

        num_rois, bins = tf.size(self.numbers), self.output_size**2
        owners, start = self._samples(tf.range(num_rois))
        grid = tf.range(self.output_size, dtype="float32")[None, :, None]
        points = start[:, None] + grid * tf.gather(self.bin_size, owners)[:, None]  # [n, out, 2]
        y_cells, y_weights = _bilinear_taps(points[..., 0], self.map_shape[1])
        x_cells, x_weights = _bilinear_taps(points[..., 1], self.map_shape[2])
        y_weights /= tf.cast(tf.gather(self.num_samples, owners), "float32")[:, None, None]
        # Axes below: sample, bin along y, bin along x, tap along y, tap along x.
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        y_cells += tf.gather(self.images, owners)[:, None, None] * self.map_shape[1]
        cells = y_cells[:, :, None, :, None] * self.map_shape[2] + x_cells[:, None, :, None, :]
        bin_numbers = owners[:, None] * bins + tf.range(bins)
        bin_numbers = tf.repeat(tf.reshape(bin_numbers, [-1]), 4)
        num_cells = tf.reduce_prod(self.map_shape[:3])
        sampling = tf.SparseTensor(
            tf.cast(tf.stack([bin_numbers, tf.reshape(cells, [-1])], axis=1), "int64"),
            tf.reshape(weights, [-1]),
            tf.cast(tf.stack([num_rois * bins, num_cells]), "int64"),
        )
        of_bins = tf.reshape(tf.gather_nd(upstream, self.numbers), [-1, upstream.shape[-1]])
        of_cells = tf.sparse.sparse_dense_matmul(sampling, of_bins, adjoint_a=True)
        return tf.reshape(of_cells, self.map_shape)

    def _samples(self, members):
        """Lists the samples of some rois.

        Returns (owners `[n]`, start `[n, 2]`): the roi of each sample, as a position in `members`,
        and where in the map it falls for the first bin; the other bins follow at `bin_size`.
        """
        import tensorflow as tf

        num_samples = tf.gather(self.num_samples, members)
        owners = tf.repeat(tf.range(tf.size(members)), num_samples)
        first = tf.gather(tf.cumsum(num_samples, exclusive=True), owners)
        sample = tf.range(tf.size(owners)) - first
        rois = tf.gather(members, owners)
        counts = tf.gather(self.counts, rois)
        sample = tf.stack([sample // counts[:, 1], sample % counts[:, 1]], axis=1)
        step = tf.gather(self.bin_size, rois) / tf.cast(counts, "float32")
        return owners, tf.gather(self.start, rois) + (tf.cast(sample, "float32") + 0.5) * step


def _bilinear_taps(points, extent):
    """Returns (cells, weights) `[..., 2]`: of one axis, the cells either side of each point."""
    last = ops.cast(extent, "float32") - 1
    counted = ops.logical_and(points >= -1, points <= last + 1)
    clamped = ops.clip(points, 0, last)
    low = ops.floor(clamped)
    upper_weight = clamped - low
    weights = ops.stack([1 - upper_weight, upper_weight], axis=-1)
    cells = ops.stack([low, ops.minimum(low + 1, last)], axis=-1)
    return ops.cast(cells, "int32"), ops.where(counted[..., None], weights, 0)


def _cell_frame(boxes, stride):
    """Returns (start, size) `[..., 2]` of boxes in cells; cell j has its centre at j."""
    start = boxes[..., :2] / stride - 0.5
    end = boxes[..., 2:] / stride - 0.5
    return start, end - start


def _sample_counts(size, bins, extent, sampling_ratio):
    """Returns int32 samples a bin; 0 for an empty roi."""
    if sampling_ratio > 0:
        return ops.cast(ops.where(size > 0, sampling_ratio, 0), "int32")
    counts = ops.cast(ops.ceil(size / bins), "int32")
    # Rois on the canvas stay below the limit. It is for sizes that are not numbers:
    # when training diverges, the step must end and say so.
    limit = ops.maximum((extent + bins - 1) // bins, MIN_SAMPLE_LIMIT)
    return ops.clip(counts, 0, ops.cast(limit, "int32"))
