"""From an index to training batches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data import geometry
from tf_panoptic_fpn.data.augment import Augmentation
from tf_panoptic_fpn.data.damaged_files import DamagedFiles
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.index import DatasetIndex, batch_schedule, is_portrait
from tf_panoptic_fpn.data.loading import ImageLoader
from tf_panoptic_fpn.data.python_calls import python_function
from tf_panoptic_fpn.data.repeats import repeat_factors
from tf_panoptic_fpn.data.tfrecords import RecordSource, records_folder
from tf_panoptic_fpn.errors import ConfigError, DataError

# Key: (dtype, shape, padding) of one image's sample; None is padded to the largest of the batch.
_SAMPLE: dict[str, tuple[tf.DType | None, list, float | None]] = {
    schema.IMAGES: (tf.uint8, [None, None, 3], 0),
    schema.IMAGE_SIZES: (tf.int32, [2], 0),
    schema.IMAGE_SEEDS: (tf.int32, [], 0),
    schema.GT_BOXES: (tf.float32, [None, 4], 0),
    schema.GT_CLASSES: (tf.int32, [None], -1),
    schema.GT_IS_CROWD: (tf.bool, [None], False),
    schema.GT_MASKS: (tf.uint8, [None, schema.GT_MASK_SIZE, schema.GT_MASK_SIZE], 0),
    schema.SEMANTIC: (None, [None, None], None),  # of uint8 or uint16, the largest value
}
Canvases = Sequence[tuple[int, int]]
_CANVAS_MULTIPLE = 32
_INSTANCE_MULTIPLE = 8


def training_dataset(
    index: DatasetIndex,
    data_config: DataConfig,
    batch_size: int,
    num_steps: int,
    seed: int,
    start_step: int = 0,
    on_damaged: Callable[[str, str], None] | None = None,
    on_error: Callable[[DataError], None] | None = None,
    parallel_calls: int = tf.data.AUTOTUNE,
    worker: int = 0,
    num_workers: int = 1,
) -> tf.data.Dataset:
    """Batches for the training steps `start_step`..`num_steps - 1`, in order.

    The batch of a step depends on `seed` and the step alone: not on `start_step`, on
    `parallel_calls` or on the hardware. An image that cannot be read is reported and replaced by
    the next one of its orientation that can.

    Args:
        index: a `DatasetIndex`.
        data_config: a `DataConfig`; its `train` and `augment` say how images are augmented.
        batch_size: int, images a batch, over all replicas and workers.
        num_steps: int, the steps of the whole run.
        seed: int, of the run.
        start_step: int, the first step, e.g. when resuming.
        on_damaged: called as `on_damaged(path, reason)` once for each image that cannot be read;
            by default a warning is logged.
        on_error: called with the `DataError` of files that contradict each other, such as a map
            with ids that the JSON lacks, or of too many damaged ones, before TensorFlow raises an
            error of its own for it.
        parallel_calls: int, images loaded at a time.
        worker, num_workers: ints; each worker gets its own, equal share of every batch.

    Returns:
        A `tf.data.Dataset` of dicts as in `schema`: `images` float32 `[B, H, W, 3]`, `image_sizes`
        int32 `[B, 2]`, `image_seeds` int32 `[B]`, `gt_boxes` float32 `[B, N, 4]`, `gt_classes`
        int32 `[B, N]`, `gt_is_crowd` bool `[B, N]`, `gt_masks` uint8 `[B, N, 112, 112]` and
        `semantic` int32 `[B, H, W]`. With `data_config.canvases`, (H, W) is the smallest canvas
        that holds the batch and N is `max_instances`; otherwise they are the batch's largest,
        rounded up to 32 pixels and to 8 instances.

    Raises:
        ConfigError: if the images do not fit the canvases, or the workers cannot share a batch.
        DataError: if no image can be read, or the first one contradicts its map or the index.
    """
    if batch_size % num_workers:
        raise ConfigError(
            f"`train.batch_size` must be a multiple of the {num_workers} workers. "
            f"Received: {batch_size}"
        )
    canvases = sorted(data_config.canvases, key=lambda canvas: canvas[0] * canvas[1])
    if canvases:
        _check_canvases(index.sizes, data_config, canvases)
    _log_instances_left_out(index, data_config.max_instances)
    rare = data_config.repeat_threshold
    repeats = repeat_factors(index, rare) if rare else None
    schedule = batch_schedule(index.sizes, batch_size, num_steps, seed, repeats)
    records = data_config.train.records
    source = RecordSource(index, records_folder(data_config)) if records else FolderSource(index)
    damaged = DamagedFiles(index, source.check, data_config.max_damaged_share, on_damaged, on_error)
    # An error inside the pipeline would reach the user as one of TensorFlow's.
    damaged.first_readable(schedule[min(start_step, num_steps - 1), 0])

    loader = ImageLoader(index, source, data_config.pixel_range)
    label_dtype = tf.as_dtype(index.label_classes.dtype)
    augmentation = Augmentation(data_config, seed, label_dtype)
    with tf.device("CPU"):
        rows = tf.constant(schedule.reshape(-1))
    share = batch_size // num_workers
    first = worker * share
    positions = tf.data.Dataset.range(start_step * share, num_steps * share)
    positions = positions.map(_plainly(lambda i: i // share * batch_size + first + i % share))
    rows_read = [lambda position: rows[position]]
    if data_config.augment.copy_paste_probability > 0:
        rows_read.append(lambda position: augmentation.donor_row(position, len(index)))
    images = [_loaded(positions, row, loader, damaged, parallel_calls) for row in rows_read]
    dataset = tf.data.Dataset.zip(positions, *images)
    dataset = dataset.map(
        _plainly(augmentation.sample), num_parallel_calls=parallel_calls, deterministic=True
    )
    shapes = {key: shape for key, (_, shape, _) in _SAMPLE.items()}
    padding = {key: _padding(key, dtype or label_dtype) for key, (dtype, *_) in _SAMPLE.items()}
    dataset = dataset.padded_batch(share, shapes, padding, drop_remainder=True)
    max_instances = data_config.max_instances
    dataset = dataset.map(_plainly(lambda batch: _finish(batch, canvases, max_instances)))
    return dataset.prefetch(2)


# AutoGraph, of which nothing here has need, would double the time to the first batch.
_plainly = tf.autograph.experimental.do_not_convert


def _loaded(
    positions: tf.data.Dataset,
    row_of: Callable[[tf.Tensor], tf.Tensor],
    loader: ImageLoader,
    damaged: DamagedFiles,
    parallel_calls: int,
) -> tf.data.Dataset:
    """The image of each position, or the next readable one in its place; nothing for a row of -1.

    An image that cannot be read is an error inside TensorFlow, dropped by `ignore_errors` from a
    data set of one position's candidates: each as the index says, then by Pillow alone.
    """

    def candidate(row: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            k == 0,
            lambda: row,
            lambda: tf.ensure_shape(
                python_function(damaged.candidate, [row, k // 2], tf.int32), []
            ),
        )

    def first_readable(position: tf.Tensor) -> tf.data.Dataset:
        row = row_of(position)
        num_tries = tf.where(row < 0, 0, 2 * damaged.max_candidates)
        tries = tf.data.Dataset.range(tf.cast(num_tries, tf.int64))
        images = tries.map(lambda k: loader.load(candidate(row, k), k % 2 == 1)).ignore_errors()
        nothing = tf.data.Dataset.from_tensors(loader.nothing())
        return images.concatenate(nothing).take(1).map(lambda loaded: (row, loaded))

    def explained(row: tf.Tensor, loaded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        used = loaded["row"]
        explain = [row, used]
        used = tf.cond(
            used == row,
            lambda: used,
            lambda: tf.ensure_shape(python_function(damaged.explain, explain, tf.int32), []),
        )
        return {**loaded, "row": used}

    cycle = tf.data.AUTOTUNE if parallel_calls == tf.data.AUTOTUNE else parallel_calls
    images = positions.interleave(
        _plainly(first_readable),
        cycle_length=cycle,
        num_parallel_calls=parallel_calls,
        deterministic=True,
    )
    return images.map(_plainly(explained))


def _log_instances_left_out(index: DatasetIndex, max_instances: int) -> None:
    counts = np.diff(index.instance_offsets)
    crowded = np.flatnonzero(counts > max_instances)
    if not len(crowded):
        return
    path, count = index.image_paths[crowded[0]].decode(), counts[crowded[0]]
    message = f"{path}: of {count} instances the {max_instances} largest are used"
    if len(crowded) > 1:
        left_out = (counts[crowded] - max_instances).sum()
        message += f", as in {len(crowded) - 1} more images; {left_out} are left out in all"
    logging.warning("%s", message)


def _check_canvases(sizes: np.ndarray, data_config: DataConfig, canvases: Canvases) -> None:
    """Each orientation's largest height and width must fit one canvas, so that any batch does."""
    portrait = is_portrait(sizes)
    for orientation, group in (("landscape", sizes[~portrait]), ("portrait", sizes[portrait])):
        if not len(group):
            continue
        height, width = geometry.largest_size(group, data_config.train, data_config.augment)
        if not any(h >= height and w >= width for h, w in canvases):
            raise ConfigError(
                f"`data.canvases` must hold the {orientation} images, up to {height}x{width}. "
                f"Received: {tuple(canvases)}"
            )


def _finish(
    batch: dict[str, tf.Tensor], canvases: Canvases, max_instances: int
) -> dict[str, tf.Tensor]:
    """Pads a batch to its canvas and number of instances, and casts what the device reads."""
    height, width = tf.unstack(tf.shape(batch[schema.SEMANTIC])[1:])
    instances = tf.shape(batch[schema.GT_CLASSES])[1]
    if canvases:
        table = tf.constant(canvases)
        fits = (table[:, 0] >= height) & (table[:, 1] >= width)
        canvas = table[tf.argmax(tf.cast(fits, tf.int32))]
        padded_instances = max_instances
    else:
        canvas = _round_up(tf.stack([height, width]), _CANVAS_MULTIPLE)
        padded_instances = tf.maximum(_round_up(instances, _INSTANCE_MULTIPLE), _INSTANCE_MULTIPLE)
    extents = {
        schema.IMAGES: [canvas[0], canvas[1]],
        schema.SEMANTIC: [canvas[0], canvas[1]],
        schema.GT_BOXES: [padded_instances],
        schema.GT_CLASSES: [padded_instances],
        schema.GT_IS_CROWD: [padded_instances],
        schema.GT_MASKS: [padded_instances],
    }
    finished = dict(batch)
    for key, extent in extents.items():
        finished[key] = _pad(batch[key], extent, _padding(key, batch[key].dtype))
        finished[key].set_shape([batch[key].shape[0], *_SAMPLE[key][1]])
    finished[schema.IMAGES] = tf.cast(finished[schema.IMAGES], tf.float32)
    # The largest value, void, wraps to 0, and so becomes -1: less work than to look for it.
    labels = finished[schema.SEMANTIC]
    finished[schema.SEMANTIC] = tf.cast(labels + tf.ones([], labels.dtype), tf.int32) - 1
    return finished


def _padding(key: str, dtype: tf.DType) -> tf.Tensor:
    value = _SAMPLE[key][2]
    return tf.constant(dtype.max if value is None else value, dtype)


def _pad(tensor: tf.Tensor, extent: Sequence[Any], value: tf.Tensor) -> tf.Tensor:
    """Pads the dimensions after the first at their end to `extent`."""
    before = tf.shape(tensor)
    missing = tf.stack(extent) - before[1 : 1 + len(extent)]
    padding = tf.pad(missing[:, None], [[1, tensor.shape.rank - 1 - len(extent)], [1, 0]])
    return tf.pad(tensor, padding, constant_values=value)


def _round_up(value: tf.Tensor, multiple: int) -> tf.Tensor:
    return -(-value // multiple) * multiple
