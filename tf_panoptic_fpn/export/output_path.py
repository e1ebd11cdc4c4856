"""Where an export goes."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.model_source import GRAPHS, ModelSource
from tf_panoptic_fpn.workdir import Workdir


def output_path(
    source: ModelSource,
    output: str | os.PathLike | None,
    of_run: Callable[[Workdir], pathlib.Path],
) -> pathlib.Path:
    """Returns the path that was given, or else the one `of_run` says.

    Raises:
        ConfigError: if none was given and the model is no run.
    """
    if output:
        return pathlib.Path(output)
    if source.workdir:
        return of_run(source.workdir)
    raise ConfigError(f"--output must be given: {source.name} is not the folder of a run")


def output_file(source: ModelSource, output: str | os.PathLike | None, suffix: str) -> pathlib.Path:
    """Returns the path of the file to write, by default `model` with the suffix, of the run.

    Args:
        source: `ModelSource`.
        output: path, or None.
        suffix: str, such as ".onnx".

    Raises:
        ConfigError: if the model is exported already, or the path is missing, is a folder or has
            another suffix.
    """
    if source.kind in GRAPHS:
        raise ConfigError(f"{source.name}: is exported already; give the model it was made of")
    path = output_path(source, output, lambda run: run.path / f"model{suffix}")
    if path.suffix != suffix or path.is_dir():
        raise ConfigError(f"--output must be a file whose name ends in {suffix}. Received: {path}")
    Workdir(path.parent).create()
    return path


def check_folder(folder: pathlib.Path, is_export: Callable[[pathlib.Path], bool]) -> None:
    """Raises ConfigError if a folder is there, holds anything, and is no export."""
    if not os.path.lexists(folder):
        return
    is_folder = folder.is_dir() and not folder.is_symlink()
    if not is_folder or (any(folder.iterdir()) and not is_export(folder)):
        raise ConfigError(
            f"{folder}: is there and holds something else than an export; it is not replaced"
        )


@contextlib.contextmanager
def replacing_folder(
    folder: pathlib.Path, is_export: Callable[[pathlib.Path], bool]
) -> Iterator[pathlib.Path]:
    """Yields the path of a folder to make, which takes the place of an export at the end.

    Args:
        folder: path; its parent is there.
        is_export: says of a folder that is there whether it may be replaced.

    Raises:
        ConfigError: see `check_folder`.
    """
    check_folder(folder, is_export)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export_") as beside:
        written = pathlib.Path(beside) / "new"
        yield written
        if folder.exists():
            folder.rename(pathlib.Path(beside) / "old")
        written.rename(folder)
