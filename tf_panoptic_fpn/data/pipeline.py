"""From a split to training batches."""

import atexit
import threading
import time

import numpy as np
import tensorflow as tf
from absl import logging

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.augment import box_frame_masks, flip_sample, resize_sample
from tf_panoptic_fpn.data.images import resized_size
from tf_panoptic_fpn.data.index import batch_schedule, build_index, is_portrait
from tf_panoptic_fpn.data.segment_map import semantic_labels, tight_boxes
from tf_panoptic_fpn.data.split import read_checked
from tf_panoptic_fpn.errors import ConfigError, DamagedFileError, DataError

# Key: (dtype, shape, padding) of one image's sample; None is padded to the largest of the batch.
_SAMPLE = {
    schema.IMAGES: (tf.uint8, [None, None, 3], 0),
    schema.IMAGE_SIZES: (tf.int32, [2], 0),
    schema.IMAGE_SEEDS: (tf.int32, [], 0),
    schema.GT_BOXES: (tf.float32, [None, 4], 0),
    schema.GT_CLASSES: (tf.int32, [None], -1),
    schema.GT_IS_CROWD: (tf.bool, [None], False),
    schema.GT_MASKS: (tf.uint8, [None, schema.GT_MASK_SIZE, schema.GT_MASK_SIZE], 0),
    schema.SEMANTIC: (tf.uint8, [None, None], schema.IGNORED),
}
_CANVAS_MULTIPLE = 32
_INSTANCE_MULTIPLE = 8


def training_dataset(
    split,
    data_config,
    batch_size,
    num_steps,
    seed,
    start_step=0,
    on_damaged=None,
    on_error=None,
    parallel_calls=tf.data.AUTOTUNE,
    semantic_things="other",
):
    """Batches for the training steps `start_step`..`num_steps - 1`, in order.

    The batch of a step depends on `seed` and the step alone: not on `start_step`, on
    `parallel_calls` or on the hardware. An image that cannot be read is reported and replaced by
    the next one of its orientation that can.

    Args:
        split: a `PanopticSplit`.
        data_config: a `DataConfig`; its `train` says how images are resized and flipped.
        batch_size: int, images a batch, over all replicas.
        num_steps: int, the steps of the whole run.
        seed: int, of the run.
        start_step: int, the first step, e.g. when resuming.
        on_damaged: called as `on_damaged(path, reason)` once for each image that cannot be read;
            by default a warning is logged.
        on_error: called with the `DataError` of files that contradict each other, such as a map
            with ids that the JSON lacks, before TensorFlow raises an error of its own for it.
        parallel_calls: int, images loaded at a time.
        semantic_things: "other" or "all", see `CategoryTable.semantic_classes`.

    Returns:
        A `tf.data.Dataset` of dicts as in `schema`: `images` float32 `[B, H, W, 3]`, `image_sizes`
        int32 `[B, 2]`, `image_seeds` int32 `[B]`, `gt_boxes` float32 `[B, N, 4]`, `gt_classes`
        int32 `[B, N]`, `gt_is_crowd` bool `[B, N]`, `gt_masks` uint8 `[B, N, 112, 112]` and
        `semantic` int32 `[B, H, W]`. With `data_config.canvases`, (H, W) is the smallest canvas
        that holds the batch and N is `max_instances`; otherwise they are the batch's largest,
        rounded up to 32 pixels and to 8 instances.

    Raises:
        ConfigError: if the images do not fit the canvases.
        DataError: if no image can be read, or the first one contradicts its map or the JSON.
    """
    index = build_index(split, semantic_things)
    canvases = sorted(data_config.canvases, key=lambda canvas: canvas[0] * canvas[1])
    if canvases:
        _check_canvases(index.sizes, data_config.train, canvases)
    schedule = batch_schedule(index.sizes, batch_size, num_steps, seed)
    loader = _Loader(index, data_config, schedule, seed, on_damaged, on_error)
    # An error inside the pipeline would reach the user as one of TensorFlow's.
    loader.readable_sample(schedule[min(start_step, num_steps - 1), 0])

    def load(position):
        dtypes = [dtype for dtype, _, _ in _SAMPLE.values()]
        # Declared stateless, since TensorFlow runs stateful functions one by one where it is asked
        # to be deterministic.
        arrays = tf.numpy_function(loader, [position], dtypes, stateful=False)
        for array, (_, shape, _) in zip(arrays, _SAMPLE.values(), strict=True):
            array.set_shape(shape)
        return dict(zip(_SAMPLE, arrays, strict=True))

    dataset = tf.data.Dataset.range(start_step * batch_size, num_steps * batch_size)
    dataset = dataset.map(load, num_parallel_calls=parallel_calls, deterministic=True)
    shapes = {key: shape for key, (_, shape, _) in _SAMPLE.items()}
    padding = {key: tf.cast(value, dtype) for key, (dtype, _, value) in _SAMPLE.items()}
    dataset = dataset.padded_batch(batch_size, shapes, padding, drop_remainder=True)
    max_instances = data_config.max_instances if canvases else None
    dataset = dataset.map(lambda batch: _finish(batch, canvases, max_instances))
    return dataset.prefetch(2)


class _CallsFromTensorFlow:
    """Lets TensorFlow's threads finish with Python before the interpreter exits.

    An exiting interpreter waits for the threads of an unfinished pipeline while they wait for its
    lock: without this, a run that is interrupted or stops early never ends.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.running = 0
        self.latest = 0.0
        self.closed = False
        atexit.register(self.close)

    def __enter__(self):
        with self.lock:
            self.latest = time.monotonic()
            if self.closed:
                raise RuntimeError("the interpreter is exiting")
            self.running += 1

    def __exit__(self, *_):
        with self.lock:
            self.running -= 1

    def close(self):
        """Refuses new calls, and returns once the pipelines have filled up with refusals."""
        self.closed = True
        while self.running or time.monotonic() - self.latest < 0.1:
            time.sleep(0.01)


_calls = _CallsFromTensorFlow()


class _Loader:
    """Makes the sample at a position of the run; called from several threads at once."""

    def __init__(self, index, data_config, schedule, seed, on_damaged, on_error):
        self.index = index
        self.resizing = data_config.train
        self.max_instances = data_config.max_instances
        self.schedule = schedule
        self.seed = seed
        self.on_damaged = on_damaged or _log_damaged
        self.on_error = on_error
        self.reported = set()
        self.lock = threading.Lock()

    def __call__(self, position):
        with _calls:
            try:
                return self._augmented_sample(position)
            except DataError as error:
                if self.on_error is not None:
                    self.on_error(error)
                raise

    def _augmented_sample(self, position):
        step, place = divmod(int(position), self.schedule.shape[1])
        sample = self.readable_sample(self.schedule[step, place])
        draws = np.random.SeedSequence(self.seed, spawn_key=(step, place)).generate_state(3)
        short_sides = self.resizing.short_sides
        short_side = short_sides[draws[0] % len(short_sides)]
        height, width = sample[schema.IMAGES].shape[:2]
        size = resized_size(height, width, short_side, self.resizing.max_long_side)
        sample = resize_sample(sample, size)
        if draws[1] / 2**32 < self.resizing.flip_probability:
            sample = flip_sample(sample)
        sample[schema.IMAGE_SIZES] = np.array(size, np.int32)
        sample[schema.IMAGE_SEEDS] = np.int32(draws[2] >> 1)
        return [np.asarray(sample[key], order="C") for key in _SAMPLE]

    def readable_sample(self, i):
        """The sample of image i, or of the next readable one, of its orientation if possible."""
        try:
            return self._sample(i)
        except DamagedFileError as error:
            self._report_damaged(self.index.image_paths[i], str(error))
        portrait = is_portrait(self.index.sizes)
        others = np.roll(np.arange(len(self.index)), -i)[1:]
        for other in others[np.argsort(portrait[others] != portrait[i], kind="stable")]:
            try:
                return self._sample(other)
            except DamagedFileError as error:
                self._report_damaged(self.index.image_paths[other], str(error))
        raise DataError(
            f"{self.index.image_paths[i]}: neither this nor any other image can be read"
        )

    def _sample(self, i):
        index = self.index
        image_path, panoptic_path = index.image_paths[i], index.panoptic_paths[i]
        rows = slice(*index.segment_offsets[i : i + 2])
        segment_ids = index.segment_ids[rows]
        image, ids = read_checked(image_path, panoptic_path, index.sizes[i], segment_ids)
        things = np.flatnonzero(index.thing_classes[rows] >= 0)
        boxes, areas = tight_boxes(ids, segment_ids[things])
        if len(things) > self.max_instances:
            if self._is_first(panoptic_path):
                logging.warning(
                    "%s: of %d instances the %d largest are used",
                    panoptic_path,
                    len(things),
                    self.max_instances,
                )
            largest = np.sort(np.argsort(-areas, kind="stable")[: self.max_instances])
            things, boxes = things[largest], boxes[largest]
        return {
            schema.IMAGES: image,
            schema.GT_BOXES: boxes,
            schema.GT_CLASSES: index.thing_classes[rows][things],
            schema.GT_IS_CROWD: index.is_crowd[rows][things],
            schema.GT_MASKS: box_frame_masks(ids, segment_ids[things], boxes),
            schema.SEMANTIC: semantic_labels(ids, segment_ids, index.semantic_classes[rows]),
        }

    def _report_damaged(self, image_path, reason):
        if self._is_first(image_path):
            self.on_damaged(image_path, reason)

    def _is_first(self, path):
        """Whether this is the first report about a file."""
        with self.lock:
            first = path not in self.reported
            self.reported.add(path)
        return first


def _log_damaged(path, reason):
    logging.warning("skipped the damaged image %s: %s", path, reason)


def _check_canvases(sizes, resizing, canvases):
    """Each orientation's largest height and width must fit one canvas, so that any batch does."""
    portrait = is_portrait(sizes)
    for orientation, group in (("landscape", sizes[~portrait]), ("portrait", sizes[portrait])):
        resized = [
            resized_size(int(height), int(width), short_side, resizing.max_long_side)
            for height, width in np.unique(group, axis=0)
            for short_side in resizing.short_sides
        ]
        if not resized:
            continue
        height, width = np.max(resized, axis=0)
        if not any(h >= height and w >= width for h, w in canvases):
            raise ConfigError(
                f"`data.canvases` must hold the {orientation} images, up to {height}x{width}. "
                f"Received: {tuple(canvases)}"
            )


def _finish(batch, canvases, max_instances):
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
        finished[key] = _pad(batch[key], extent, _SAMPLE[key][2])
        finished[key].set_shape([batch[key].shape[0], *_SAMPLE[key][1]])
    finished[schema.IMAGES] = tf.cast(finished[schema.IMAGES], tf.float32)
    finished[schema.SEMANTIC] = tf.cast(finished[schema.SEMANTIC], tf.int32)
    return finished


def _pad(tensor, extent, value):
    """Pads the dimensions after the first at their end to `extent`."""
    before = tf.shape(tensor)
    missing = tf.stack(extent) - before[1 : 1 + len(extent)]
    padding = tf.pad(missing[:, None], [[1, tensor.shape.rank - 1 - len(extent)], [1, 0]])
    return tf.pad(tensor, padding, constant_values=tf.cast(value, tensor.dtype))


def _round_up(value, multiple):
    return -(-value // multiple) * multiple
