"""Random resizing, cropping and flipping: drawn once for an image, then applied to all its parts.

An image is resized, a window of it is cut out, and that is perhaps mirrored. Nothing that the
window leaves out is computed.
"""

import typing

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.config import AugmentConfig, SplitConfig


class Geometry(typing.NamedTuple):
    """Where the pixels of a training image come from."""

    source_size: tf.Tensor  # int32 [2], (H, W) of the image as read
    resized_size: tf.Tensor  # int32 [2]
    window: tf.Tensor  # int32 [4], (y1, x1, y2, x2) in the resized image
    is_flipped: tf.Tensor  # bool []

    @property
    def size(self) -> tf.Tensor:
        """int32 `[2]`, of the result."""
        return self.window[2:] - self.window[:2]

    @property
    def source_window(self) -> tf.Tensor:
        """float64 `[4]`, the window in pixels of the image as read."""
        ratio = tf.cast(self.source_size, tf.float64) / tf.cast(self.resized_size, tf.float64)
        return tf.cast(self.window, tf.float64) * tf.tile(ratio, [2])

    @property
    def shown(self) -> tf.Tensor:
        """int32 `[4]`, (y1, x1, y2, x2): the pixels of the image as read that the window shows.

        Those of which it holds the centre, and those of which it holds less, where a pixel of the
        result still takes its label from them: enlarged, that part is some pixels wide.
        """
        window = self.source_window
        first = tf.cast(tf.math.ceil(window[:2] - 0.5), tf.int32)
        last = tf.cast(tf.math.floor(window[2:] + 0.5), tf.int32) - 1
        sizes = self.resized_size, self.source_size
        return tf.concat(
            [
                tf.minimum(first, resize_point(self.window[:2], *sizes)),
                tf.maximum(last, resize_point(self.window[2:] - 1, *sizes)) + 1,
            ],
            0,
        )


def draw_size(
    source_size: tf.Tensor, split_config: SplitConfig, augment: AugmentConfig, draw: tf.Tensor
) -> tf.Tensor:
    """Draws the size that an image is resized to.

    Args:
        source_size: int32 `[2]`.
        split_config: `SplitConfig`; `short_sides` and `max_long_side`, where no scale is drawn.
        augment: `AugmentConfig`.
        draw: float32 `[]`, in [0, 1).

    Returns:
        int32 `[2]`, at least 1.

    Reference: for a scale relative to the crop, large-scale jitter of arXiv:2012.07177.
    """
    size = tf.cast(source_size, tf.float64)
    if augment.scale_range:
        low, high = augment.scale_range
        scale = low + tf.cast(draw, tf.float64) * (high - low)
        if augment.scale_relative_to == "crop":
            scale *= tf.reduce_min(np.array(augment.crop_size, float) / size)
        return tf.maximum(tf.cast(size * scale + 0.5, tf.int32), 1)
    sides = split_config.short_sides
    if augment.short_side_sampling == "range":
        sides = range(min(sides), max(sides) + 1)
    short_side = tf.constant(list(sides), tf.float64)[uniform_int(draw, len(sides))]
    # As `images.resized_size`.
    long_side = short_side / tf.reduce_min(size) * tf.reduce_max(size)
    shrink = tf.minimum(split_config.max_long_side / long_side, 1.0)
    short, long = (
        tf.maximum(tf.cast(side * shrink + 0.5, tf.int32), 1) for side in (short_side, long_side)
    )
    return tf.where(size[0] < size[1], [short, long], [long, short])


def uniform_int(draw: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Turns a draw in [0, 1) into an int32 below `count`."""
    count = tf.cast(count, tf.int32)
    # A draw just below 1 can round up.
    return tf.minimum(tf.cast(draw * tf.cast(count, tf.float32), tf.int32), count - 1)


def largest_size(
    sizes: np.ndarray, split_config: SplitConfig, augment: AugmentConfig
) -> tuple[int, int]:
    """Returns the largest height and width that images can come out with.

    Args:
        sizes: int `[n, 2]`, (H, W) of the images.
        split_config, augment: as for `draw_size`.

    Returns:
        `(height, width)`, ints.
    """
    sizes = np.unique(sizes, axis=0)
    draws = (0.0, 1.0)
    if not augment.scale_range and augment.short_side_sampling == "choice":
        count = len(split_config.short_sides)
        draws = (np.arange(count) + 0.5) / count
    drawn = [
        draw_size(tf.constant(size, tf.int32), split_config, augment, d).numpy()
        for size in sizes
        for d in draws
    ]
    return tuple(np.minimum(np.max(drawn, 0), augment.crop_size or np.inf).astype(int).tolist())


def draw_window(
    resized_size: tf.Tensor,
    crop_size: tf.Tensor,
    draws: tf.Tensor,
    focus: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Draws where a crop lies; along an axis that is not longer than the crop, it is all of it.

    Args:
        resized_size: int32 `[2]`.
        crop_size: int32 `[2]`.
        draws: float32 `[2]`, in [0, 1).
        focus: `(is_given, pixel)`, bool `[]` and int32 `[2]`: a pixel (row, column) of the resized
            image that the crop must hold. None if any crop will do.

    Returns:
        int32 `[4]`, (y1, x1, y2, x2).
    """
    extent = tf.minimum(crop_size, resized_size)
    low, high = tf.zeros_like(extent), resized_size - extent
    if focus is not None:
        is_given, pixel = focus
        low = tf.where(is_given, tf.maximum(pixel - extent + 1, 0), low)
        high = tf.where(is_given, tf.minimum(pixel, high), high)
    start = low + uniform_int(draws, high - low + 1)
    return tf.concat([start, start + extent], 0)


def draw_pixel_of_class(
    rectangles: tf.Tensor, classes: tf.Tensor, draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a class among those present, and a pixel of it.

    Args:
        rectangles: int32 `[r, 4]`, the pixels of an image by class, (y1, x1, y2, x2).
        classes: int32 `[r]`, the class of each; -1 for none.
        draws: float32 `[4]`, in [0, 1).

    Returns:
        `(is_drawn, pixel)`: bool, False where there is no class; and int32 `[2]`, (row, column).

    Reference: class-uniform sampling, arXiv:1712.02616; the images themselves are
    taken in their usual order here.
    """
    extents = rectangles[:, 2:] - rectangles[:, :2]
    areas = tf.cast(extents[:, 0] * extents[:, 1], tf.float64)
    present, _ = tf.unique(tf.boolean_mask(classes, (classes >= 0) & (areas > 0)))
    # One more of each, so that an image without any class needs no branch.
    present = tf.concat([tf.sort(present), [-1]], 0)
    rectangles = tf.concat([rectangles, [[0, 0, 1, 1]]], 0)
    classes, areas = tf.concat([classes, [-1]], 0), tf.concat([areas, [1.0]], 0)
    num_classes = tf.maximum(tf.size(present) - 1, 1)
    drawn_class = present[uniform_int(draws[0], num_classes)]
    ends = tf.cumsum(tf.where(classes == drawn_class, areas, 0.0))
    drawn = tf.searchsorted(ends, tf.cast(draws[1:2], tf.float64) * ends[-1], side="right")[0]
    rectangle = tf.gather(rectangles, drawn)
    pixel = rectangle[:2] + uniform_int(draws[2:], rectangle[2:] - rectangle[:2])
    return drawn_class >= 0, pixel


def resize_image(image: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Applies a geometry to an image: bilinear, antialiased when shrinking.

    Equal to Pillow's bilinear resizing of 8-bit images to within 1 level.

    Args:
        image: uint8 `[H, W, 3]`.
        geometry: `Geometry`.

    Returns:
        uint8 `[h, w, 3]`.
    """
    source_size, resized_size, window, is_flipped = geometry
    is_whole = tf.reduce_all(geometry.size == resized_size)
    is_enlarged = tf.reduce_all(resized_size >= source_size)

    pixels = tf.cast(image, tf.float32)[None]  # faster than 8-bit ones

    def plain() -> tf.Tensor:  # the faster kernel
        return tf.image.resize(pixels, resized_size)

    def antialiased() -> tf.Tensor:
        return tf.raw_ops.ScaleAndTranslate(
            images=pixels,
            size=geometry.size,
            scale=tf.cast(resized_size, tf.float32) / tf.cast(source_size, tf.float32),
            translation=-tf.cast(window[:2], tf.float32),
            kernel_type="triangle",
            antialias=True,
        )

    resized = tf.cond(is_whole & is_enlarged, plain, antialiased)[0]
    resized = tf.cast(resized + 0.5, tf.uint8)
    return _flipped(tf.ensure_shape(resized, [None, None, 3]), is_flipped)


def resize_labels(labels: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Applies a geometry to a map: each new pixel takes the label at its centre.

    Args:
        labels: `[H, W]`, of any dtype.
        geometry: `Geometry`.

    Returns:
        `[h, w]`.
    """
    rows, columns = _source_pixels(geometry)
    columns = tf.where(geometry.is_flipped, columns[::-1], columns)
    return tf.gather(tf.gather(labels, columns, axis=1), rows)


def paint_runs(
    rectangles: tf.Tensor, values: tf.Tensor, geometry: Geometry, dtype: tf.DType = tf.uint8
) -> tf.Tensor:
    """Applies a geometry to a map that is given by its runs, as `resize_labels` does to the map.

    Args:
        rectangles: int32 `[r, 4]`, (y1, x1, y2, x2); the runs of all rows, in their order, each of
            height 1 and shorter than 32768.
        values: int32 `[r]`, of each run, -32768 to 32767.
        geometry: `Geometry`.
        dtype: of the result; uint8 or uint16 make the largest value they hold of -1.

    Returns:
        `[h, w]`.
    """
    rows, columns = _source_pixels(geometry)
    # Of each source column, how many new ones lie before it: where runs begin in the new map.
    place = tf.searchsorted(columns, tf.range(geometry.source_size[1] + 1))
    lengths = tf.gather(place, rectangles[:, 3]) - tf.gather(place, rectangles[:, 1])
    # Repeats each value: much faster here than `tf.repeat`.
    starts = tf.bitwise.left_shift(values, 16)
    counted = tf.raw_ops.RaggedRange(starts=starts, limits=starts + lengths, deltas=1)[1]
    painted = tf.cast(tf.bitwise.right_shift(counted, 16), dtype)
    painted = tf.reshape(painted, [geometry.source_size[0], tf.size(columns)])
    return _flipped(tf.gather(painted, rows), geometry.is_flipped, axis=1)


def _source_pixels(geometry: Geometry) -> list[tf.Tensor]:
    """The row and the column of the image as read at the centre of each of the window's."""
    source_size, resized_size, window, _ = geometry
    return [
        resize_point(
            tf.range(window[axis], window[axis + 2]), resized_size[axis], source_size[axis]
        )
        for axis in (0, 1)
    ]


def resize_point(pixel: tf.Tensor, source_size: tf.Tensor, resized_size: tf.Tensor) -> tf.Tensor:
    """Returns int32, the pixel of a resized image at the centre of one of the image as read."""
    centre = 2 * tf.cast(pixel, tf.int64) + 1
    source_size, resized_size = tf.cast(source_size, tf.int64), tf.cast(resized_size, tf.int64)
    return tf.cast(centre * resized_size // (2 * source_size), tf.int32)


def resize_boxes(boxes: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Applies a geometry to boxes that do not reach out of its window.

    Args:
        boxes: float32 `[n, 4]`, yxyx, pixels of the image as read.
        geometry: `Geometry`.

    Returns:
        float32 `[n, 4]`, pixels of the result.
    """
    source_size, resized_size, window, is_flipped = geometry
    scale = tf.cast(resized_size, tf.float32) / tf.cast(source_size, tf.float32)
    offset = tf.cast(tf.tile(window[:2], [2]), tf.float32)
    limits = tf.cast(tf.tile(geometry.size, [2]), tf.float32)
    boxes = tf.clip_by_value(boxes * tf.tile(scale, [2]) - offset, 0.0, limits)
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    width = limits[1]
    return tf.where(is_flipped, tf.stack([y1, width - x2, y2, width - x1], -1), boxes)


def flip_masks(masks: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Applies a geometry to box-frame masks `[n, size, size]`, which only a flip changes."""
    return _flipped(masks, geometry.is_flipped, axis=-1)


def _flipped(tensor: tf.Tensor, is_flipped: tf.Tensor, axis: int = -2) -> tf.Tensor:
    return tf.cond(is_flipped, lambda: tf.reverse(tensor, [axis]), lambda: tensor)
