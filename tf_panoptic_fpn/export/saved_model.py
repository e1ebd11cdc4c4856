"""A SavedModel that serves a predictor: image bytes in, panoptic segmentation out."""

import json
import os
import pathlib
import tempfile
import typing
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.decode import decode_served_image
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.images import FULL_RANGE
from tf_panoptic_fpn.inference.load_predictor import predictor_of
from tf_panoptic_fpn.inference.model_source import EXPORTED, ONNX, OPENVINO, ModelSource
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.saved_model import CATEGORIES, PIXEL_RANGE, SAVED_MODEL, SETTINGS
from tf_panoptic_fpn.workdir import Workdir

# Beside the keys of the merge, for each image. TF Serving's REST interface encodes strings in
# base64 where the name ends in `_bytes`, and breaks otherwise.
PANOPTIC_PNG = "panoptic_png_bytes"  # string [], a PNG, id = R + 256 G + 65536 B
IMAGE_SIZE = "image_size"  # int32 [2], (H0, W0)
PADDING = -1  # of category ids, which may be 0
# Nobody trains what is served, and a gradient with a sparse matrix of its own cannot be saved.
WITHOUT_GRADIENTS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)


class ServedGraph:
    """The endpoints of a SavedModel.

    Args:
        predictor: a `Predictor`.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def serve_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `tensor`: uint8 `[B, H0, W0, 3]` -> flat dict of tensors with a leading B."""
        outputs = self.predictor.traced(images)
        instances = outputs.pop(schema.INSTANCES, None)
        outputs[PANOPTIC_PNG] = tf.map_fn(
            _encode_ids, outputs[schema.PANOPTIC_MAP], fn_output_signature=tf.string
        )
        outputs[IMAGE_SIZE] = tf.tile(tf.shape(images)[None, 1:3], [tf.shape(images)[0], 1])
        if instances is not None:
            thing_ids = tf.constant(self.predictor.categories.thing_ids, tf.int64)
            classes = instances.pop(schema.CLASSES)
            category_ids = tf.gather(thing_ids, tf.maximum(classes, 0))
            instances[schema.CATEGORY_IDS] = tf.where(classes >= 0, category_ids, PADDING)
            outputs.update(_served_detections(instances))
        return outputs

    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `serving_default`: encoded images, string `[B]` -> as `serve_images`.

        JPEGs are turned upright by their EXIF orientation. Images may differ in size; each is run
        by itself, so its result does not depend on the others, and the maps are padded with 0 at
        the right and bottom to the largest.
        """
        signature = self._served_signature()
        maps = [m for m in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP) if m in signature]
        for name in maps:
            signature[name] = tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1)

        def serve_one(encoded: tf.Tensor) -> dict[str, Any]:
            image = decode_served_image(encoded, self.predictor.pixel_range)
            outputs = self.serve_images(image[None])
            row = {name: value[0] for name, value in outputs.items()}
            for name in maps:
                row[name] = tf.RaggedTensor.from_tensor(row[name], ragged_rank=1)
            return row

        outputs = tf.map_fn(serve_one, image_bytes, fn_output_signature=signature)
        return {
            name: value.to_tensor() if name in maps else value for name, value in outputs.items()
        }

    def _served_signature(self) -> dict[str, Any]:
        signature = self.predictor.merged_signature()
        instances = signature.pop(schema.INSTANCES, None)
        signature[PANOPTIC_PNG] = tf.TensorSpec([], tf.string)
        signature[IMAGE_SIZE] = tf.TensorSpec([2], tf.int32)
        if instances is not None:
            shape = instances.pop(schema.CLASSES).shape
            instances[schema.CATEGORY_IDS] = tf.TensorSpec(shape, tf.int64)
            signature.update(_served_detections(instances))
        return signature


def export_model(source: ModelSource, output: str | os.PathLike | None = None) -> pathlib.Path:
    """Exports a model.

    Args:
        source: `ModelSource`.
        output: folder, see `export_saved_model`; by default `saved_model/1` of its run.

    Returns:
        The folder, a `pathlib.Path`.

    Raises:
        ConfigError: if the model cannot be loaded, is a SavedModel already, or the folder holds
            anything but an export.
    """
    if source.kind in (ONNX, OPENVINO):
        raise ConfigError(f"{source.name}: is exported already; give the model it was made of")
    if source.kind == EXPORTED:
        raise ConfigError(f"{source.name}: is a SavedModel already")
    if output:
        folder = pathlib.Path(output)
    elif source.workdir:
        folder = source.workdir.saved_model
    else:
        raise ConfigError(f"--output must be given: {source.name} is not the folder of a run")
    check_replaceable(folder)
    Workdir(folder.parent).create()
    export_saved_model(typing.cast(Predictor, predictor_of(source)), folder)
    return folder


def check_replaceable(folder: str | os.PathLike) -> None:
    """Raises ConfigError if a folder is there and was not written by `export_saved_model`."""
    folder = pathlib.Path(folder)
    if not os.path.lexists(folder):
        return
    is_export = (folder / SAVED_MODEL).is_file() and (folder / CATEGORIES).is_file()
    if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and not is_export):
        raise ConfigError(
            f"{folder}: is there and holds something else than an export; it is not replaced"
        )


def export_saved_model(predictor: Predictor, output: str | os.PathLike) -> None:
    """Writes a SavedModel that serves a predictor and needs neither Keras nor this package.

    Signatures: `serving_default`, `image_bytes` string `[B]` of JPEG or PNG files; `tensor`,
    `images` uint8 `[B, H, W, 3]`. Both return the keys of the merge, PANOPTIC_PNG, SEMANTIC_MAP,
    IMAGE_SIZE, and the detections as `detection_boxes`, `detection_scores`,
    `detection_category_ids`, `detection_mask_probs` and `num_detections`, with a leading B; a
    model of one task lacks the keys of the other. Category ids are int64, -1 where they are
    padding. `assets/categories.json` has the categories, `assets/settings.json` the thresholds of
    the merge. 16-bit grey PNGs among `image_bytes` are
    scaled by the predictor's `pixel_range`.

    Args:
        predictor: a `Predictor`.
        output: the version's folder, such as `saved_model/1`. An earlier export that is there is
            replaced when the new one is complete.

    Raises:
        ConfigError: if the folder is there and holds anything else.
    """
    output = pathlib.Path(output)
    check_replaceable(output)
    graph = ServedGraph(predictor)
    # Not Keras' ExportArchive: it traces each endpoint again and stores the weights twice.
    module = tf.Module()
    module.weights = [weight.value for weight in predictor.model.weights]
    signatures = {
        "serving_default": _traced(
            graph.serve_bytes, tf.TensorSpec([None], tf.string, name="image_bytes")
        ),
        "tensor": _traced(
            graph.serve_images, tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
        ),
    }
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export_") as beside:
        written = pathlib.Path(beside) / "new"
        tf.saved_model.save(module, str(written), signatures, WITHOUT_GRADIENTS)
        predictor.categories.save(written / CATEGORIES)
        settings = {
            "merge": predictor.merge.model_dump(),
            "semantic_things": predictor.categories.semantic_things,
        }
        (written / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        if predictor.pixel_range != FULL_RANGE:
            text = json.dumps(predictor.pixel_range)
            (written / PIXEL_RANGE).write_text(text, encoding="utf-8")
        if output.exists():
            output.rename(pathlib.Path(beside) / "old")
        written.rename(output)


def _traced(function: Callable, *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()


def _served_detections(instances: Mapping[str, Any]) -> dict[str, Any]:
    """The flat names under which detections are served."""
    names = {
        "detection_category_ids": schema.CATEGORY_IDS,
        "detection_boxes": schema.BOXES,
        "detection_scores": schema.SCORES,
        "detection_mask_probs": schema.MASK_PROBS,
        "num_detections": schema.NUM_DETECTIONS,
    }
    return {served: instances[name] for served, name in names.items()}


def _encode_ids(panoptic_map: tf.Tensor) -> tf.Tensor:
    channels = [panoptic_map % 256, panoptic_map // 256 % 256, panoptic_map // 65536]
    return tf.io.encode_png(tf.cast(tf.stack(channels, axis=-1), tf.uint8))
