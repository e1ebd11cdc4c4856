"""Where an export goes."""

import os
import pathlib
from collections.abc import Callable

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
