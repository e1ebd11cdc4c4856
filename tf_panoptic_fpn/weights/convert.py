"""From a file of weights to a `.keras` or a `.safetensors` file."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tf_panoptic_fpn.weight_files.checkpoint_files import (
    Checkpoint,
    is_safetensors_file,
    read_checkpoint,
)
from tf_panoptic_fpn.weight_files.trainer_wrapping import count_known
from tf_panoptic_fpn.weights import detectron2, keras_applications, mmdet, torchvision
from tf_panoptic_fpn.weights.report import ImportReport, WeightsError
from tf_panoptic_fpn.weights.source import Source
from tf_panoptic_fpn.weights.tf_panoptic_fpn import (
    CONFIG_KEY,
    is_keras_file,
    tf_panoptic_fpn_source,
    write_model_config,
)

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

SOURCES: dict[str, Callable[..., Source]] = {
    "detectron2": detectron2.detectron2_source,
    "torchvision": torchvision.torchvision_source,
    "mmdet": mmdet.mmdet_source,
    "keras_applications": keras_applications.keras_applications_source,
    "tf_panoptic_fpn": tf_panoptic_fpn_source,
}
_RULES = {
    "detectron2": detectron2.RULES,
    "torchvision": torchvision.RULES,
    "mmdet": mmdet.RULES,
    "keras_applications": keras_applications.RULES,
}
# What a file does not say about itself, and the loader of its source takes.
OPTIONS = {"detectron2": "channel_order", "torchvision": "norm_epsilon", "mmdet": "style"}


def convert_weights(
    source: str | None,
    input_path: str | os.PathLike,
    output_path: str | os.PathLike,
    model: "PanopticFPN | None" = None,
    options: dict | None = None,
    **allowed: str | Iterable[str],
) -> ImportReport:
    """Reads a checkpoint, prints the report and writes the model.

    Args:
        source: a key of `SOURCES`; None to tell it by the names in the file.
        input_path: the checkpoint.
        output_path: the file to write: `.keras`, or `.safetensors`, which has the weights in
            detectron2's names and layouts and the model's configuration in its metadata. A file of
            the same kind that is there is replaced once the new one is complete.
        model: a `PanopticFPN`, by default the one that a checkpoint of a whole detector fits.
        options: dict of the source's own options, such as {"style": "caffe"} of mmdet.
        **allowed: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of `set_weights`.

    Returns:
        The `ImportReport`.

    Raises:
        WeightsError: if the source, a path or the weights are not as they must be.
    """
    if source is not None and source not in SOURCES:
        raise WeightsError(f"source must be one of {', '.join(SOURCES)}. Received: {source!r}")
    output = pathlib.Path(output_path)
    check_output(output)
    given = open_source(input_path, source, options)
    # Keras takes its seconds to import: after what may be refused without it.
    from tf_panoptic_fpn.weights.infer_model import infer_model
    from tf_panoptic_fpn.weights.set_weights import set_weights

    model = model or infer_model(given)
    report = set_weights(model, given, **allowed)
    write_model(model, output)
    return report


def open_source(
    path: str | os.PathLike, source: str | None = None, options: dict | None = None
) -> Source:
    """Reads a file as a `Source`.

    Args:
        path: of a checkpoint of any source.
        source: a key of `SOURCES`; None to tell it by the names in the file.
        options: dict of the source's own options.

    Raises:
        WeightsError: if the file cannot be read, its names are of no known source, or an option is
            not one of its source.
    """
    if source in (None, "tf_panoptic_fpn") and is_keras_file(path):
        return _with_options("tf_panoptic_fpn", path, options)
    checkpoint = read_checkpoint(path)
    source = source or find_source(checkpoint)
    if source is None:
        raise WeightsError(
            f"{path}: its names are of none of {', '.join(SOURCES)}; say which it is (--source,"
            " or train.initial_weights_source)"
        )
    return _with_options(source, checkpoint, options)


def _with_options(source: str, checkpoint: Any, options: dict | None) -> Source:
    options = options or {}
    for name in set(options) - {OPTIONS.get(source)}:
        raise WeightsError(f"{source} has no option `{name}`")
    return SOURCES[source](checkpoint, **options)


def find_source(checkpoint: Checkpoint) -> str | None:
    """The key of `SOURCES` whose names a checkpoint has; None where they are of no source."""
    if CONFIG_KEY in checkpoint.metadata:
        return "tf_panoptic_fpn"
    names = list(checkpoint.arrays)
    counts = {source: count_known(names, rules) for source, rules in _RULES.items()}
    best = max(counts, key=lambda source: counts[source])
    return best if counts[best] else None


def check_output(path: pathlib.Path) -> None:
    """Raises `WeightsError` unless a file can be written there, or replaced by one of its kind."""
    kinds = {".keras": is_keras_file, ".safetensors": is_safetensors_file}
    if path.suffix not in kinds:
        raise WeightsError(f"The output must end in .keras or .safetensors. Received: {path}")
    if os.path.lexists(path) and not kinds[path.suffix](path):
        raise WeightsError(f"{path}: is there and no {path.suffix} file; it is not replaced")


def write_model(model: "PanopticFPN", path: pathlib.Path) -> None:
    """Writes a model beside its path, with the suffix of `check_output`, and renames it.

    Raises:
        WeightsError: if the file cannot be written; a file that was there is then as before.
    """
    write = _write_keras if path.suffix == ".keras" else _write_safetensors
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
            unfinished = pathlib.Path(folder, path.name)
            write(model, unfinished)
            with contextlib.suppress(FileNotFoundError):  # the mode of what is replaced
                unfinished.chmod(path.stat().st_mode & 0o777)
            unfinished.replace(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error}") from None


def _write_keras(model: "PanopticFPN", path: pathlib.Path) -> None:
    model.save(path)


def _write_safetensors(model: "PanopticFPN", path: pathlib.Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays

    arrays = {
        name: np.ascontiguousarray(value, np.float32)
        for name, value in detectron2_arrays(model).items()
    }
    save_file(arrays, path, write_model_config(model))
