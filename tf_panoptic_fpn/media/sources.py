"""Which files a prediction is asked for, and what its outputs are called."""

import collections
import dataclasses
import glob
import logging
import os
import pathlib
from collections.abc import Collection, Iterable

from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.folders import unread_kinds
from tf_panoptic_fpn.media.video import VIDEO_SUFFIXES

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Input:
    """One file: its path, its name in results, and the stem of its outputs, both with folders."""

    path: pathlib.Path
    file_name: str
    stem: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(
    patterns: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    more_suffixes: Collection[str] = (),
) -> list[Input]:
    """Finds the files that are asked for.

    A folder stands for the images and videos in it and in its folders, without what lies in
    `output`; the log says which kinds of file are left out. Outputs are named after the file, with
    the folders below the one that was given or below a pattern's fixed part. Where two would share
    a name they get the folders below the one that all inputs share, and then their suffix.

    Args:
        patterns: list of files, folders and globs (`**` for any folders).
        output: folder that the outputs go to.
        more_suffixes: lower-case endings of files that are images, beside those that Pillow knows.

    Returns:
        list of `Input`, in the order given, each file once.

    Raises:
        DataError: if a pattern stands for no file.
    """
    roots: dict[
        pathlib.Path, pathlib.Path
    ] = {}  # absolute path -> the folder that its name starts at
    for pattern in patterns:
        files, root = _expand(pattern, pathlib.Path(output).resolve(), more_suffixes)
        for file in files:
            roots.setdefault(pathlib.Path(os.path.abspath(file)), root)
    names = [path.relative_to(root).as_posix() for path, root in roots.items()]
    shared = os.path.commonpath([path.parent for path in roots])
    longer = [path.relative_to(shared) for path in roots]
    stems = [os.path.splitext(name)[0] for name in names]
    for others in ([p.with_suffix("").as_posix() for p in longer], [p.as_posix() for p in longer]):
        count = collections.Counter(stems)
        stems = [
            stem if count[stem] == 1 else other for stem, other in zip(stems, others, strict=True)
        ]
    return [Input(*entry) for entry in zip(roots, names, stems, strict=True)]


def _expand(
    pattern: str | os.PathLike, output: pathlib.Path, more_suffixes: Collection[str]
) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Returns the files of a pattern, sorted, and the folder that their names start at."""
    path = pathlib.Path(os.path.abspath(pattern))
    if path.is_file():
        return [path], path.parent
    if path.is_dir():
        root, found = path, path.rglob("*")
    elif glob.has_magic(str(pattern)):
        fixed = [*path.parts]
        while glob.has_magic(str(pathlib.Path(*fixed))):
            fixed.pop()
        root = pathlib.Path(*fixed)
        found = map(pathlib.Path, glob.iglob(str(path), recursive=True))
    else:
        raise DataError(f"{pattern}: no such file or folder")
    suffixes = VIDEO_SUFFIXES | set(Image.registered_extensions()) | {*more_suffixes}
    found = sorted(f for f in found if f.is_file() and output not in f.resolve().parents)
    files = [file for file in found if file.suffix.lower() in suffixes]
    names = [file.relative_to(root).as_posix() for file in found if file.name[0] != "."]
    left_out = unread_kinds(names, tuple(suffixes))
    if not files:
        reason = f": {left_out[0]}" if left_out else ""
        raise DataError(f"{pattern}: no image or video there{reason}")
    for line in left_out:
        _logger.warning("%s: left out: %s", pattern, line)
    return files, root
