"""Training images in TFRecord shards, for storage where many small files are slow.

Each record is a `tf.train.Example` with the encoded image and map and the image's part of the
index, so that the shards can be read by others too. Beside them lie `index.npz`, the whole index,
and `records.npz`, the shard, offset and length of each image's record, by which the pipeline reads
any image at once, in the same order as from a folder.
"""

import concurrent.futures
import io
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data.decode import decode_id_map, decode_image
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.index import DatasetIndex
from tf_panoptic_fpn.errors import DamagedFileError, DataError

_INDEX, _RECORDS = "index.npz", "records.npz"
_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # of a TFRecord: length and checksums
_PER_IMAGE = ("sizes", "orientations", "needs_pillow")
_PER_LABEL = ("label_ids", "label_classes")
_PER_INSTANCE = ("instance_classes", "instance_is_crowd", "instance_map_ids")
_IMAGE_BYTES, _MAP_BYTES = "image", "map"


def records_folder(data_config: DataConfig) -> str:
    """Returns the folder of `data.train.records`, which is taken from `data.root`."""
    records = data_config.train.records
    return records if "://" in records else os.path.join(data_config.root, records)


def write_records(index: DatasetIndex, folder: str | os.PathLike, num_shards: int) -> int:
    """Writes the images of an index as TFRecord shards, in parallel.

    Every image is read and checked before it is written.

    Args:
        index: `DatasetIndex`.
        folder: path that `tf.io.gfile` can write to; made if absent.
        num_shards: int, at most one for each image is written.

    Returns:
        The number of shards.

    Raises:
        DataError: if a file is damaged or contradicts the index, or the folder cannot be written.
    """
    source = FolderSource(index)
    shards = np.array_split(np.arange(len(index)), min(num_shards, len(index)))

    def write(shard: int) -> np.ndarray:
        path = _shard_path(folder, shard, len(shards))
        return _write_shard(index, source, shards[shard], path)

    try:
        tf.io.gfile.makedirs(folder)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            lengths = list(pool.map(write, range(len(shards))))
        columns = {name: getattr(index, name) for name in _array_names()}
        described = {
            "categories": index.categories.to_coco(),
            "map_format": index.map_format,
            "semantic_things": index.categories.semantic_things,
        }
        _save(os.path.join(folder, _INDEX), description=json.dumps(described), **columns)
        # Last, since a reader begins with it: without it the folder is unfinished.
        _save(
            os.path.join(folder, _RECORDS),
            shards=np.repeat(np.arange(len(shards)), [len(rows) for rows in shards]),
            offsets=np.concatenate([_offsets(values) for values in lengths]),
            lengths=np.concatenate(lengths),
        )
    except tf.errors.OpError as error:
        raise DataError(f"{folder}: the records cannot be written: {_line(error)}") from None
    return len(shards)


def load_records_index(folder: str | os.PathLike, semantic_things: str) -> DatasetIndex:
    """Loads the index of a folder that `write_records` wrote.

    Args:
        folder: path.
        semantic_things: "other" or "all"; must be what the records were written with.

    Returns:
        A `DatasetIndex`.

    Raises:
        DataError: if the folder holds no complete records, or was written with other semantic
            classes.
    """
    columns = _load(folder, _INDEX)
    described = json.loads(str(columns.pop("description")))
    if described["semantic_things"] != semantic_things:
        raise DataError(
            f"{folder}: the records were written with `model.semantic_things: "
            f"{described['semantic_things']}`. Received: {semantic_things!r}"
        )
    categories = CategoryTable.from_coco(described["categories"], file=str(folder))
    categories = categories.with_semantic_things(semantic_things)
    return DatasetIndex(categories, described["map_format"], **columns)


class RecordSource:
    """The records of a folder; takes the place of a `FolderSource`.

    Args:
        index: the folder's `DatasetIndex`.
        folder: path.
    """

    def __init__(self, index: DatasetIndex, folder: str | os.PathLike) -> None:
        self.index = index
        records = _load(folder, _RECORDS)
        num_shards = int(records["shards"][-1]) + 1
        paths = [_shard_path(folder, shard, num_shards) for shard in range(num_shards)]
        try:
            sizes = np.array([tf.io.gfile.stat(path).length for path in paths])
        except tf.errors.OpError as error:
            raise DataError(f"{folder}: a shard cannot be read: {_line(error)}") from None
        offsets, lengths = records["offsets"], records["lengths"]
        rest = sizes[records["shards"]] - offsets - lengths
        if (rest < _FOOTER_BYTES).any():
            shard = records["shards"][rest < _FOOTER_BYTES][0]
            raise DataError(f"{paths[shard]}: the file is shorter than `{_RECORDS}` says")
        with tf.device("CPU"):
            self.paths = tf.constant(paths)
            self.shards = tf.constant(records["shards"])
            self.offsets, self.lengths = tf.constant(offsets), tf.constant(lengths)
            self.rest = tf.constant(rest)

    def read(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `FolderSource.read`."""
        # The one reader among TensorFlow's ops that begins anywhere in a file.
        record = tf.data.FixedLengthRecordDataset(
            self.paths[self.shards[row]],
            record_bytes=self.lengths[row],
            header_bytes=self.offsets[row],
            footer_bytes=self.rest[row],
            buffer_size=self.lengths[row],
        ).get_single_element()
        features = {key: tf.io.FixedLenFeature([], tf.string) for key in (_IMAGE_BYTES, _MAP_BYTES)}
        parsed = tf.io.parse_single_example(record, features)
        return parsed[_IMAGE_BYTES], parsed[_MAP_BYTES]

    def check(self, row: int) -> None:
        """Reads the record of an image.

        Args:
            row: int.

        Raises:
            DamagedFileError: if it cannot be read or decoded.
        """
        index = self.index
        needs_pillow = tf.constant(index.needs_pillow[row])
        try:
            image_bytes, map_bytes = self.read(tf.constant(row))
            decode_image(image_bytes, tf.constant(index.orientations[row]), needs_pillow)
            if index.map_format != "none":
                decode_id_map(map_bytes, index.map_format, needs_pillow)
        except tf.errors.OpError as error:
            shard = self.paths[self.shards[row]].numpy().decode()
            raise DamagedFileError(
                f"{shard}: the record of {index.image_paths[row].decode()} is damaged: "
                f"{_line(error)}"
            ) from None


def _write_shard(
    index: DatasetIndex, source: FolderSource, rows: Iterable[int], path: str
) -> np.ndarray:
    """Writes the records of some images; returns the length of each, int64 `[n]`."""
    lengths = []
    with tf.io.TFRecordWriter(path) as writer:
        for row in rows:
            source.check(row)
            image_bytes, map_bytes = (data.numpy() for data in source.read(tf.constant(row)))
            record = _example(index, row, image_bytes, map_bytes).SerializeToString()
            writer.write(record)
            lengths.append(len(record))
    return np.array(lengths, np.int64)


def _example(
    index: DatasetIndex, row: int, image_bytes: bytes, map_bytes: bytes
) -> tf.train.Example:
    labels = slice(*index.label_offsets[row : row + 2])
    instances = slice(*index.instance_offsets[row : row + 2])
    run_offsets = index.run_offsets[instances.start : instances.stop + 1]
    values = {
        _IMAGE_BYTES: [image_bytes],
        _MAP_BYTES: [map_bytes],
        "image_path": [index.image_paths[row]],
        "map_format": [index.map_format.encode()],
        **{name: np.ravel(getattr(index, name)[row]) for name in _PER_IMAGE},
        **{name: getattr(index, name)[labels] for name in _PER_LABEL},
        **{name: getattr(index, name)[instances] for name in _PER_INSTANCE},
        "num_runs": np.diff(run_offsets),
        "runs": index.runs[run_offsets[0] : run_offsets[-1]],
    }
    return tf.train.Example(
        features=tf.train.Features(feature={key: _feature(value) for key, value in values.items()})
    )


def _feature(values: Any) -> tf.train.Feature:
    if len(values) and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=list(values)))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.asarray(values, np.int64)))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """Where the content of each record of a shard begins."""
    whole = lengths + _HEADER_BYTES + _FOOTER_BYTES
    return np.cumsum(whole) - whole + _HEADER_BYTES


def _shard_path(folder: str | os.PathLike, shard: int, num_shards: int) -> str:
    return os.path.join(folder, f"images-{shard:05d}-of-{num_shards:05d}.tfrecord")


def _array_names() -> list[str]:
    return [
        name
        for name in DatasetIndex.__dataclass_fields__
        if name not in ("categories", "map_format")
    ]


def _save(path: str, **arrays: Any) -> None:
    data = io.BytesIO()
    np.savez(data, **arrays)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(data.getvalue())


def _load(folder: str | os.PathLike, name: str) -> dict[str, np.ndarray]:
    path = os.path.join(folder, name)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return dict(np.load(io.BytesIO(file.read())))
    except tf.errors.OpError as error:
        raise DataError(f"{path}: cannot be read: {_line(error)}") from None
    except Exception as error:  # NumPy's and zipfile's for a damaged file
        raise DataError(f"{path}: damaged: {' '.join(str(error).split())}") from None


def _line(error: tf.errors.OpError) -> str:
    return error.message.splitlines()[0]
