"""A SavedModel that serves a predictor: image bytes in, panoptic segmentation out."""

import hashlib
import json
import os
import pathlib
import typing
from typing import Any

import tensorflow as tf

from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.export.check import check_export
from tf_panoptic_fpn.export.output_path import check_folder, output_path, replacing_folder
from tf_panoptic_fpn.export.served_graph import ServedGraph
from tf_panoptic_fpn.export.stored_model import StoredModel
from tf_panoptic_fpn.export.warm_up import write_warm_up
from tf_panoptic_fpn.formats.images import FULL_RANGE
from tf_panoptic_fpn.inference.load_predictor import predictor_of
from tf_panoptic_fpn.inference.model_source import EXPORTED, ONNX, OPENVINO, ModelSource
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.saved_model import CATEGORIES, PIXEL_RANGE, SAVED_MODEL, SETTINGS
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.section import as_lists
from tf_panoptic_fpn.version import __version__
from tf_panoptic_fpn.visualize.colors import segment_colors
from tf_panoptic_fpn.workdir import Workdir

# Nobody trains what is served, and a gradient with a sparse matrix of its own cannot be saved.
WITHOUT_GRADIENTS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)

TAKE_BYTES = ("serving_default", "instances", "semantic")  # the signatures of image bytes alone


def export_model(
    source: ModelSource,
    output: str | os.PathLike | None = None,
    predictor: Predictor | None = None,
) -> pathlib.Path:
    """Exports a model.

    Args:
        source: `ModelSource`.
        output: folder, see `export_saved_model`; by default `saved_model/1` of its run.
        predictor: of this source, if it is loaded already: what it has traced is not traced again.

    Returns:
        The folder, a `pathlib.Path`.

    Raises:
        ConfigError: if the model cannot be loaded, is a SavedModel already, or the folder holds
            anything but an export.
        PanopticError: if what was exported differs from the model; the folder is as it was.
    """
    if source.kind in (ONNX, OPENVINO):
        raise ConfigError(f"{source.name}: is exported already; give the model it was made of")
    if source.kind == EXPORTED:
        raise ConfigError(f"{source.name}: is a SavedModel already")
    folder = output_path(source, output, lambda run: run.saved_model)
    check_replaceable(folder)
    Workdir(folder.parent).create()
    predictor = predictor or typing.cast(Predictor, predictor_of(source))
    export_saved_model(predictor, folder, source.load_config(), check=True)
    return folder


def check_replaceable(folder: str | os.PathLike) -> None:
    """Raises ConfigError if a folder is there and was not written by `export_saved_model`."""
    check_folder(pathlib.Path(folder), _is_export)


def _is_export(folder: pathlib.Path) -> bool:
    return (folder / SAVED_MODEL).is_file() and (folder / CATEGORIES).is_file()


def export_saved_model(
    predictor: Predictor,
    output: str | os.PathLike,
    config: Config | None = None,
    check: bool = False,
) -> None:
    """Writes a SavedModel that serves a predictor and needs neither Keras nor this package.

    Signatures: see `ServedGraph.signatures`. Beside the graph, `assets/categories.json` has the
    categories and `assets/settings.json` what else is to be known, see `_settings`; 16-bit grey
    PNGs among `image_bytes` are scaled by the predictor's `pixel_range`, which
    `assets/pixel_range.json` has.

    Args:
        predictor: a `Predictor`.
        output: the version's folder, such as `saved_model/1`. An earlier export that is there is
            replaced when the new one is complete.
        config: `Config`, whose section `serve` is read; None: the defaults.
        check: bool, whether to load what was written in a process of its own and to compare it
            with the predictor, see `check_export`.

    Raises:
        ConfigError: if the folder is there and holds anything else.
        PanopticError: if the check finds a difference; the folder is as it was.
    """
    output = pathlib.Path(output)
    check_replaceable(output)
    config = config or Config()
    # Not Keras' ExportArchive: it traces each endpoint again and stores the weights twice.
    module = tf.Module()
    model = StoredModel(predictor.model, config.serve.weights)
    module.weights = model.weights
    served = predictor if model.is_same else predictor.with_model(model)
    signatures = ServedGraph(served, config.serve).signatures()
    with replacing_folder(output, _is_export) as written:
        tf.saved_model.save(module, str(written), signatures, WITHOUT_GRADIENTS)
        predictor.categories.save(written / CATEGORIES)
        text = json.dumps(_settings(predictor, config), indent=1)
        (written / SETTINGS).write_text(text, encoding="utf-8")
        if predictor.pixel_range != FULL_RANGE:
            text = json.dumps(predictor.pixel_range)
            (written / PIXEL_RANGE).write_text(text, encoding="utf-8")
        takes_bytes = [name for name in TAKE_BYTES if name in signatures]
        write_warm_up(written, output.parent.name, takes_bytes)
        if check:
            try:
                # Of rounded weights the results are others than the model's.
                expected = predictor if config.serve.weights == "float32" else served
                check_export(written, expected, config.serve.max_pixels)
            except PanopticError as error:
                raise PanopticError(f"{output}: not written: {error}") from None


def _settings(predictor: Predictor, config: Config) -> dict[str, Any]:
    """What `assets/settings.json` tells of a model."""
    segments = [{"category_id": category.id} for category in predictor.categories.categories]
    colors = segment_colors(segments, predictor.categories)
    return {
        "version": __version__,
        "merge": predictor.merge.model_dump(),
        "serve": config.serve.model_dump(),
        "semantic_things": predictor.categories.semantic_things,
        "colors": {str(s["category_id"]): c for s, c in zip(segments, colors, strict=True)},
        "weights_sha256": weights_hash(predictor.model),
        "config": as_lists(config.model_dump()),
    }


def weights_hash(model: PanopticFPN) -> str:
    """SHA-256 of a model's weights: of each its path, shape, dtype and values, in their order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        values = weight.numpy()
        digest.update(f"{weight.path} {values.shape} {values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
