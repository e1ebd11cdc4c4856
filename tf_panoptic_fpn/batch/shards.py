"""The files of predictions of many images: Parquet shards, each whole or not there."""

import dataclasses
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError

RUN = "run.json"  # what the shards of a folder are of
CATEGORIES = b"categories"  # key of a shard's metadata: JSON, COCO's list
PARTIAL = ".partial-"  # how the files begin that are not yet whole
_BOX = pa.list_(pa.float64(), 4)  # xywh, pixels
_SEGMENT = {"id": pa.int32(), "category_id": pa.int64(), "area": pa.int64(), "bbox": _BOX}
_INSTANCE = {"category_id": pa.int64(), "bbox": _BOX, "score": pa.float64(), "rle": pa.string()}
# A row is an image. `segments_info` and `instances` are those of a `Result`; `rle` has the counts
# of COCO's run-length code; `instances` is null where the model does not detect.
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "file_name": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "segments_info": pa.list_(pa.struct({**_SEGMENT, "score": pa.float64()})),
        "instances": pa.list_(pa.struct(_INSTANCE)),
        "panoptic_png": pa.binary(),  # ids, R + 256 G + 65536 B
    }
)


@dataclasses.dataclass(frozen=True)
class Shards:
    """The folder of predictions.

    Args:
        folder: str, a path or an address that one of Beam's file systems knows.
        count: int, of its shards.
    """

    folder: str
    count: int

    def number_of(self, path: str) -> int:
        """Returns the shard of an image: a hash of its path, whatever else there is."""
        return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % self.count

    def parquet(self, number: int) -> str:
        return self._file("predictions", number, "parquet")

    def dead(self, number: int) -> str:
        return self._file("dead", number, "jsonl")

    def _file(self, kind: str, number: int, ending: str) -> str:
        name = f"{kind}-{number:05d}-of-{self.count:05d}.{ending}"
        return FileSystems.join(self.folder, name)

    def inputs_of(self, number: int) -> set[str] | None:
        """Returns the paths that a shard accounts for, predicted or dead; None if not written."""
        if not FileSystems.exists(self.parquet(number)):
            return None
        with _open(self.parquet(number)) as file:  # of which the column alone is read
            table = pq.read_table(file, columns=["path"])
        dead = (entry["path"] for entry in self.read_dead(number))
        return {*table["path"].to_pylist(), *dead}

    def read_dead(self, number: int) -> list[dict[str, str]]:
        """Returns the inputs of a shard that could not be predicted: `path` and `reason`."""
        if not FileSystems.exists(self.dead(number)):
            return []
        lines = read_bytes(self.dead(number)).decode().splitlines()
        return [json.loads(line) for line in lines]

    def write(
        self,
        number: int,
        rows: Sequence[dict[str, Any]],
        dead: Sequence[dict[str, str]],
        categories: CategoryTable,
    ) -> None:
        """Writes a shard: its dead inputs first, so that the Parquet file says that both are there.

        Args:
            number: int, of the shard.
            rows: as in `SCHEMA`.
            dead: dicts `path` and `reason`.
            categories: `CategoryTable`.
        """
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in dead)
        if dead:
            write_bytes(self.dead(number), text.encode())
        elif FileSystems.exists(self.dead(number)):  # of an earlier run, since when it was mended
            FileSystems.delete([self.dead(number)])
        metadata = {CATEGORIES: json.dumps(categories.to_coco())}
        table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata(metadata))
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_bytes(self.parquet(number), buffer.getvalue())

    def read(self) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """Yields of each shard its rows and COCO's list of categories.

        Raises:
            DataError: if a shard is not there.
        """
        for number in range(self.count):
            name = self.parquet(number)
            if not FileSystems.exists(name):
                raise DataError(f"{name}: no such file; run the prediction again, it goes on")
            with _open(name) as file:
                table = pq.read_table(file)
            yield table.to_pylist(), json.loads(table.schema.metadata[CATEGORIES])


def open_shards(folder: str) -> Shards:
    """Returns the shards of a folder that `predict_beam` wrote.

    Raises:
        DataError: if it is none.
    """
    folder = absolute(folder)
    file = FileSystems.join(folder, RUN)
    if not FileSystems.exists(file):
        raise DataError(f"{file}: no such file; the folder holds no predictions of predict-beam")
    return Shards(folder, json.loads(read_bytes(file))["num_shards"])


def absolute(path: str) -> str:
    """Returns a local path as every worker understands it; an address stays."""
    return path if "://" in path else os.path.abspath(path)


def read_bytes(path: str) -> bytes:
    """Reads a file of any file system of Beam's, as it is, compressed or not."""
    with _open(path) as file:
        return file.read()


def _open(path: str) -> BinaryIO:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file beside its place and renames it; one that is there is replaced."""
    folder, name = FileSystems.split(path)
    partial = FileSystems.join(folder, f"{PARTIAL}{uuid.uuid4().hex}-{name}")
    with FileSystems.create(partial, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
    FileSystems.rename([partial], [path])
