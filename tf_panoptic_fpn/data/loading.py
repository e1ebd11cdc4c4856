"""Reading the images of an index in TensorFlow ops."""

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.decode import decode_id_map, decode_image
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.index import DatasetIndex
from tf_panoptic_fpn.data.instance_masks import (
    column_rectangles,
    find_ids,
    foreground_runs,
    map_runs,
)
from tf_panoptic_fpn.data.tfrecords import RecordSource
from tf_panoptic_fpn.formats.images import FULL_RANGE

_LOADED = {
    "row": ([], tf.int32),  # of the index; -1 where nothing could be read
    "image": ([None, None, 3], tf.uint8),
    "classes": ([None], tf.int32),  # [n]
    "is_crowd": ([None], tf.bool),  # [n]
    "rectangles": ([None, 4], tf.int32),  # [q, 4], (y1, x1, y2, x2)
    "owners": ([None], tf.int32),  # [q], instance, -1 for none
}
_LABELS = {
    "map_rectangles": ([None, 4], tf.int32),  # [r, 4], (y1, x1, y2, x2), in the order of the rows
    "map_classes": ([None], tf.int32),  # [r], semantic class, -1 ignored
}
_MAP = {
    "ids": ([None, None], tf.int32),  # [H, W]
    "map_ids": ([None], tf.int32),  # [n], id of each instance
}
_RUNS = {
    "run_starts": ([None], tf.int32),  # [f]
    "run_ends": ([None], tf.int32),  # [f]
    "run_owners": ([None], tf.int32),  # [f], instance
}


class ImageLoader:
    """Reads images with their labels and instances.

    What it loads is described by `element_spec`, a dict of `tf.TensorSpec`. H x W is the image, r
    runs of equal ids in the rows of its map, n instances, q rectangles that they consist of, f runs
    of instances down the columns (see `instance_masks`). The keys depend on whether the data set
    has maps, and on where its masks are, in the maps or in runs.

    Args:
        index: `DatasetIndex`.
        source: `FolderSource` or `RecordSource`.
        pixel_range: see `formats.images.read_image`.
    """

    def __init__(
        self,
        index: DatasetIndex,
        source: FolderSource | RecordSource,
        pixel_range: tuple[int, int] = FULL_RANGE,
    ) -> None:
        self.source = source
        self.pixel_range = pixel_range
        self.map_format = index.map_format
        self.void_label = index.void_label
        # Without a map they can be nowhere else, even where there is none.
        self.masks_are_runs = bool(np.any(index.instance_map_ids < 0)) or self.map_format == "none"
        keys = _LOADED | (_RUNS if self.masks_are_runs else _MAP)
        if self.map_format != "none":
            keys |= _LABELS
        self.element_spec = {
            key: tf.TensorSpec(shape, dtype) for key, (shape, dtype) in keys.items()
        }
        with tf.device("CPU"):
            self.columns = {
                name: tf.constant(getattr(index, name))
                for name in (
                    *("sizes", "orientations", "needs_pillow"),
                    *("label_offsets", "label_ids", "label_classes"),
                    *("instance_offsets", "instance_classes", "instance_is_crowd"),
                    *("instance_map_ids", "run_offsets", "runs"),
                )
            }

    def load(self, row: tf.Tensor, with_pillow: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads an image.

        Args:
            row: int32 `[]`, of the index.
            with_pillow: bool `[]`, decodes with Pillow whatever the index says.

        Returns:
            A dict by `element_spec`.

        Raises:
            tf.errors.OpError: if a file cannot be read or decoded or is not as the index says.
        """
        columns = self.columns
        image_bytes, map_bytes = self.source.read(row)
        with_pillow |= columns["needs_pillow"][row]
        orientation = columns["orientations"][row]
        image = decode_image(image_bytes, orientation, with_pillow, self.pixel_range)
        size = columns["sizes"][row]
        tf.debugging.Assert(
            tf.reduce_all(tf.shape(image)[:2] == size), ["the image has another size"]
        )
        instances = self._slice("instance_offsets", row)
        loaded = {
            "row": row,
            "image": image,
            "classes": columns["instance_classes"][instances],
            "is_crowd": columns["instance_is_crowd"][instances],
        }
        if self.map_format != "none":
            loaded |= self._load_map(row, map_bytes, with_pillow, size)
        if self.masks_are_runs:
            loaded |= self._load_runs(instances, size[0])
        else:
            loaded["map_ids"] = columns["instance_map_ids"][instances]
            loaded["rectangles"] = loaded["map_rectangles"]
            loaded["owners"] = find_ids(loaded["run_ids"], loaded["map_ids"])
        return {
            key: tf.ensure_shape(loaded[key], spec.shape) for key, spec in self.element_spec.items()
        }

    def nothing(self) -> dict[str, tf.Tensor]:
        """Returns a dict as `load` does, of no image."""
        empty = {
            key: tf.zeros([size or 0 for size in spec.shape], spec.dtype)
            for key, spec in self.element_spec.items()
        }
        return {**empty, "row": tf.constant(-1)}

    def _slice(self, offsets: str, row: tf.Tensor) -> slice:
        offsets = self.columns[offsets]
        return slice(offsets[row], offsets[row + 1])

    def _load_map(
        self, row: tf.Tensor, map_bytes: tf.Tensor, with_pillow: tf.Tensor, size: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        ids = decode_id_map(map_bytes, self.map_format, with_pillow)
        tf.debugging.Assert(tf.reduce_all(tf.shape(ids) == size), ["the map has another size"])
        rectangles, run_ids = map_runs(ids)
        labels = self._slice("label_offsets", row)
        place = find_ids(run_ids, self.columns["label_ids"][labels])
        self._check_ids(run_ids, place, labels.stop - labels.start)
        # The position -1 of void finds the last entry.
        classes = tf.cast(self.columns["label_classes"][labels], tf.int32)
        classes = tf.where(classes == self.void_label, schema.IGNORED, classes)
        table = tf.concat([classes, [schema.IGNORED]], 0)
        run_classes = tf.gather(table, tf.where(place < 0, tf.size(table) - 1, place))
        return {
            "map_rectangles": rectangles,
            "map_classes": run_classes,
            "ids": ids,
            "run_ids": run_ids,
        }

    def _check_ids(self, run_ids: tf.Tensor, place: tf.Tensor, num_labels: tf.Tensor) -> None:
        is_listed = place >= 0
        if self.map_format == "rgb":
            is_listed |= run_ids == 0
            found, _ = tf.unique(tf.boolean_mask(place, place >= 0))
            is_complete = tf.size(found, tf.int64) == num_labels
            tf.debugging.Assert(is_complete, ["the map lacks ids that are listed"])
        tf.debugging.Assert(tf.reduce_all(is_listed), ["the map has ids that are not listed"])

    def _load_runs(self, instances: slice, height: tf.Tensor) -> dict[str, tf.Tensor]:
        offsets = self.columns["run_offsets"][instances.start : instances.stop + 1]
        runs = tf.cast(self.columns["runs"][offsets[0] : offsets[-1]], tf.int32)
        num_runs = tf.cast(offsets[1:] - offsets[:-1], tf.int32)
        starts, ends, owners = foreground_runs(runs, num_runs)
        return {
            "rectangles": column_rectangles(starts, ends, height),
            "owners": tf.tile(owners, [3]),
            "run_starts": starts,
            "run_ends": ends,
            "run_owners": owners,
        }
