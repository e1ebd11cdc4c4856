"""The index of a split, kept in a folder of memory-mapped arrays and made once."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.data.index import class_warnings, compiled_chunks
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import LEAVE_OUT, Breaches
from tf_panoptic_fpn.formats.records import PanopticSplit

Columns = tuple[CategoryTable, dict[str, np.ndarray]]
FOLDER = ".panoptic_index"
_VERSION = 1  # of the format; another one is made anew
_UNFINISHED = "unfinished-"
_LEFTOVER_SECONDS = 24 * 3600


def cached_columns(
    read_split: Callable[[Breaches], PanopticSplit],
    sources: Sequence[str | os.PathLike],
    settings: Mapping[str, Any],
    folders: Sequence[str | os.PathLike],
) -> Columns:
    """Loads the columns of an index from a cache, where it is made first unless it is there.

    It is made anew when a source changes: a file by its size or time of change, a folder by that
    of itself or of a folder in it, that is when files come or go. Annotations and images that
    cannot be used are left out, counted and named in the log.

    Args:
        read_split: function of a `Breaches`, which takes what is left out; returns the
            `PanopticSplit`.
        sources: paths of the files and folders that the index is made from.
        settings: dict of JSON values that say how they are read.
        folders: folders to keep the index in; the first that can be written to is used. If none
            can, the index is held in memory.

    Returns:
        The `CategoryTable` and the columns, for `index_of_columns`.

    Raises:
        DataError: if the split cannot be read.
    """
    folder = _writable(folders)  # before the signature: it may lie in one of the sources
    if folder is None:
        logging.warning(
            "no folder for the index can be written to: %s", ", ".join(map(str, folders))
        )
        with tempfile.TemporaryDirectory(prefix="panoptic_index-") as temporary:
            return _make(read_split, pathlib.Path(temporary) / "index")
    place = _hash([str(source) for source in sources] + [settings])
    path = folder / f"{place}-{_hash([_signature(source) for source in sources])}"
    if path.exists():
        try:
            return _load(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            logging.warning("the index %s is damaged and made anew: %s", path, error)
            _remove(path)
    index = _make(read_split, path)
    for other in folder.glob(f"{place}-*"):
        if other != path:
            _remove(other)
    _remove_leftovers(folder)
    return index


def _writable(folders: Sequence[str | os.PathLike]) -> pathlib.Path | None:
    for folder in map(pathlib.Path, folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.rmdir(tempfile.mkdtemp(dir=folder, prefix=_UNFINISHED))
            return folder
        except OSError:
            continue
    return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _signature(path: str | os.PathLike) -> list:
    """What tells a changed source: size and time of a file, the times of a folder's folders."""
    try:
        if not os.path.isdir(path):
            status = os.stat(path)
            return [status.st_size, status.st_mtime_ns]
        times = []
        for folder, subfolders, _ in os.walk(str(path)):
            subfolders[:] = sorted(name for name in subfolders if name != FOLDER)
            times.append([os.path.relpath(folder, path), os.stat(folder).st_mtime_ns])
        return times
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _make(read_split: Callable[[Breaches], PanopticSplit], path: pathlib.Path) -> Columns:
    """Writes the index beside its place, loads it, and moves it there in one step."""
    breaches = Breaches(LEAVE_OUT)
    split = read_split(breaches)
    unfinished = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=_UNFINISHED))
    try:
        _write(split, unfinished, breaches)
        index = _load(unfinished)
        with contextlib.suppress(OSError):  # another process was faster; its index is the same
            os.rename(unfinished, path)
    except OSError as error:
        raise DataError(f"{path}: the index cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for line in (*breaches.lines(), *class_warnings(*index)):
        logging.warning("%s", line)
    return index


def _remove(path: pathlib.Path) -> None:
    """Removes a folder, out of the sight of other processes first."""
    gone = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        os.rename(path, gone)
        shutil.rmtree(gone)


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what processes that were killed a day ago or earlier have left."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path)


def _write(split: PanopticSplit, folder: pathlib.Path, breaches: Breaches) -> None:
    chunks: dict[str, list[np.ndarray]] = {}
    with open(folder / "runs.npy", "wb") as file:
        # NumPy leaves room in the header for the length to grow.
        header = {"descr": "<u2", "fortran_order": False, "shape": (0,)}
        np.lib.format.write_array_header_1_0(file, header)
        num_runs = 0
        for chunk in compiled_chunks(split, breaches):
            runs = chunk.pop("runs").astype("<u2")
            num_runs += len(runs)
            file.write(runs.tobytes())
            for name, values in chunk.items():
                chunks.setdefault(name, []).append(values)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (num_runs,)})
    checksums = {}
    for name, pieces in chunks.items():
        array = np.concatenate(pieces)
        np.save(folder / f"{name}.npy", array)
        checksums[name] = zlib.crc32(array.data)
    description = {
        "version": _VERSION,
        "categories": split.categories.to_coco(),
        "checksums": checksums,
        "num_runs": num_runs,
    }
    (folder / "index.json").write_text(json.dumps(description), encoding="utf-8")


def _load(path: pathlib.Path) -> Columns:
    """Maps the arrays into memory.

    Raises:
        OSError, EOFError, ValueError, KeyError or TypeError: if a file is missing or damaged. Of
            the runs, which may be large, only the number is looked at.
    """
    description = json.loads((path / "index.json").read_text(encoding="utf-8"))
    if description["version"] != _VERSION:
        raise ValueError(f"version {description['version']}")
    names = [*description["checksums"], "runs"]
    columns = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in names}
    for name, checksum in description["checksums"].items():
        if zlib.crc32(columns[name]) != checksum:
            raise ValueError(f"{name}.npy")
    if len(columns["runs"]) != description["num_runs"]:
        raise ValueError("runs.npy")
    categories = CategoryTable.from_coco(description["categories"], file=str(path))
    return categories, columns
