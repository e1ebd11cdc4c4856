"""What a path or a name stands for as a model: its kind, its configuration, its categories."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import Config, load_config, load_run_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.onnx_runtime import onnx_categories
from tf_panoptic_fpn.inference.openvino_runtime import openvino_categories
from tf_panoptic_fpn.inference.saved_model import SAVED_MODEL, exported_categories
from tf_panoptic_fpn.paths import expand
from tf_panoptic_fpn.weights.tf_panoptic_fpn import is_keras_file
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO
from tf_panoptic_fpn.workdir import Workdir

RUN, KERAS, EXPORTED, ONNX, OPENVINO, CHECKPOINT, PUBLISHED = (
    "run",
    ".keras file",
    "SavedModel",
    "ONNX file",
    "OpenVINO model",
    "checkpoint",
    "published model",
)
SUFFIXES = {".onnx": ONNX, ".xml": OPENVINO}
GRAPHS = (EXPORTED, ONNX, OPENVINO)  # what `export` wrote, with everything in it


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A model where it lies, as `find_model` found it.

    Args:
        name: str, the path or the name that was given.
        kind: RUN, KERAS, EXPORTED, ONNX, OPENVINO, CHECKPOINT or PUBLISHED.
        path: `pathlib.Path` of its file or, of a SavedModel, its folder; None for PUBLISHED.
        config: path of a YAML file, or None: that of the run, else the defaults.
        categories_file: path of a JSON file with the categories, or None.
        overrides: `a.b=value` strings on the configuration.
    """

    name: str
    kind: str
    path: pathlib.Path | None
    config: str | None = None
    categories_file: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def workdir(self) -> Workdir | None:
        """The `Workdir` of a run, or None."""
        return Workdir(self.path.parent) if self.kind == RUN and self.path else None

    @property
    def has_data(self) -> bool:
        """Whether the configuration names a data set."""
        return self.kind == RUN or self.config is not None

    def load_config(self, overrides: Sequence[str] = ()) -> Config:
        """Loads the `Config`, with more overrides."""
        overrides = [*self.overrides, *overrides]
        if self.config is None and self.workdir:
            return load_run_config(self.workdir.config, overrides)
        return load_config(self.config or os.devnull, overrides)

    def known_categories(self) -> CategoryTable | None:
        """The `CategoryTable` that is given with the model, or None."""
        if self.categories_file:
            return CategoryTable.load(self.categories_file)
        if self.workdir:
            return CategoryTable.load(self.workdir.categories)
        if self.kind not in GRAPHS or self.path is None:
            return None
        read = {
            EXPORTED: exported_categories,
            ONNX: onnx_categories,
            OPENVINO: openvino_categories,
        }
        return read[self.kind](self.path)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the model's files; of a published model, of its name."""
        digest = hashlib.sha256()
        if self.path is None:
            digest.update(MODEL_ZOO[self.name].path.encode())
            return digest.hexdigest()
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        for file in files:
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def find_model(
    model: str | os.PathLike,
    config: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
) -> ModelSource:
    """Finds what a path or a name stands for, by what is there.

    Args:
        model: the folder of a finished run; a `.keras` file; the folder of an exported SavedModel
            or of its versions, of which the highest is taken; an exported `.onnx` or OpenVINO's
            `.xml`; a checkpoint that an importer of `weights` reads; or a name of
            `weights.MODEL_ZOO`.
        config: path of a YAML file, or None: that of the run, else the defaults.
        categories: path of a JSON file with the categories, or None.
        overrides: `a.b=value` strings on the configuration.

    Returns:
        A `ModelSource`.

    Raises:
        ConfigError: if it stands for nothing, or for a run that is not finished.
    """
    name = str(model)
    kind, path = _find(name)
    return ModelSource(
        name,
        kind,
        path,
        None if config is None else str(config),
        None if categories is None else str(categories),
        tuple(overrides),
    )


def _find(name: str) -> tuple[str, pathlib.Path | None]:
    """Returns the kind and the path, or None, of what a name stands for."""
    if name in MODEL_ZOO:
        return PUBLISHED, None
    path = pathlib.Path(expand(name))
    if path.is_dir():
        return _find_in_folder(path)
    if path.is_file() and path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix], path
    if path.is_file():
        return (KERAS if is_keras_file(path) else CHECKPOINT), path
    raise ConfigError(
        f"{name}: no such file or folder, and no published model. Published: {', '.join(MODEL_ZOO)}"
    )


def _find_in_folder(folder: pathlib.Path) -> tuple[str, pathlib.Path]:
    """Returns the kind and the path of the model in a folder."""
    if (folder / SAVED_MODEL).is_file():
        return EXPORTED, folder
    versions = [path.parent for path in folder.glob(f"*/{SAVED_MODEL}")]
    versions = [path for path in versions if path.name.isdecimal()]
    if versions:
        return EXPORTED, max(versions, key=lambda path: int(path.name))
    workdir = Workdir(folder)
    if not workdir.config.is_file():
        raise ConfigError(
            f"{folder}: holds no model: neither {workdir.config.name} of a run nor {SAVED_MODEL}"
        )
    workdir.check_trained()
    return RUN, workdir.trained
