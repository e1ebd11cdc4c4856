"""The files of an index, read where they lie."""

import os

import tensorflow as tf

from tf_panoptic_fpn.data.index import DatasetIndex
from tf_panoptic_fpn.errors import DamagedFileError, DataError
from tf_panoptic_fpn.formats.records import ImageRecord, Segment, load_segments


class FolderSource:
    """The files of an index, where they lie.

    Args:
        index: `DatasetIndex`.
    """

    def __init__(self, index: DatasetIndex) -> None:
        self.index = index
        with tf.device("CPU"):
            self.image_paths = tf.constant(index.image_paths)
            self.map_paths = tf.constant(index.map_paths)

    def read(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads the files of an image in TensorFlow ops.

        Args:
            row: int32 `[]`.

        Returns:
            `(image_bytes, map_bytes)`, strings `[]`; the latter is empty without a map.
        """
        image_bytes = tf.io.read_file(self.image_paths[row])
        if self.index.map_format == "none":
            return image_bytes, tf.constant(b"")
        return image_bytes, tf.io.read_file(self.map_paths[row])

    def check(self, row: int) -> None:
        """Reads the files of an image in Python.

        Args:
            row: int.

        Raises:
            DamagedFileError: if one cannot be read or decoded.
            DataError: if they contradict each other or the index, or their folder is gone.
        """
        index = self.index
        labels = slice(*index.label_offsets[row : row + 2])
        shift = 1 if index.map_format == "grey" else 0
        ids, is_void = index.label_ids[labels], index.label_classes[labels] == index.void_label
        height, width = index.sizes[row].tolist()
        record = ImageRecord(
            image_id=int(row),
            file_name="",
            image_path=index.image_paths[row].decode(),
            panoptic_path=index.map_paths[row].decode(),
            height=height,
            width=width,
            segments=tuple(Segment(i + shift, 0) for i in ids[~is_void].tolist()),
            map_format=index.map_format,
            void_values=tuple(ids[is_void].tolist()),
        )
        try:
            load_segments(record)
        except DamagedFileError as error:
            for path in filter(None, (record.image_path, record.panoptic_path)):
                folder = os.path.dirname(path)
                if not os.path.isdir(folder):
                    raise DataError(
                        f"{folder}: the folder is gone; bring it back, and the same command goes on"
                    ) from error
            raise
