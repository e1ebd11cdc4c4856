"""The network alone as a LiteRT file: a resized image in, detections and semantic logits out."""

import os
import pathlib
import tempfile
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.export.check import MAX_SCORE, example_image
from tf_panoptic_fpn.export.output_path import output_file
from tf_panoptic_fpn.export.saved_model import WITHOUT_GRADIENTS
from tf_panoptic_fpn.export.stored_model import StoredModel
from tf_panoptic_fpn.formats.images import resized_size
from tf_panoptic_fpn.inference.load_predictor import predictor_of
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.inference.predictor import Predictor

SIGNATURE = "serving_default"


def export_litert(source: ModelSource, output: str | os.PathLike | None = None) -> pathlib.Path:
    """Exports the network as a LiteRT file, see `write_litert`.

    Args:
        source: `ModelSource`; its `serve.canvases` has the one size of images, before they are
            resized.
        output: path of the file, by default `model.tflite` of its run.

    Returns:
        The path, a `pathlib.Path`.

    Raises:
        ConfigError: if the model cannot be loaded or is exported already, the path ends otherwise
            than in `.tflite`, or `serve.canvases` has not one size.
        PanopticError: as `write_litert`.
    """
    path = output_file(source, output, ".tflite")
    canvases = source.load_config().serve.canvases
    if len(canvases) != 1:
        raise ConfigError(
            "`serve.canvases` must have one size for LiteRT, which has static shapes: "
            f"--set=serve.canvases=[[480,640]]. Received: {[list(c) for c in canvases]}"
        )
    write_litert(typing.cast(Predictor, predictor_of(source)), path, canvases[0])
    return path


def write_litert(
    predictor: Predictor, path: str | os.PathLike, image_size: tuple[int, int]
) -> None:
    """Writes what a predictor's model does to an image that is resized already.

    Input: `images` float32 `[1, H, W, 3]`, RGB 0-255. Outputs: those of the model, see
    `PanopticFPN`. What is around it, resizing with antialiasing and the merge at the size of the
    image, is not in the file. Before it takes its place it is run on a picture and compared.

    Args:
        predictor: a `Predictor`.
        path: of the file; one that is there is replaced.
        image_size: (height, width) of images; H and W are what they are resized to.

    Raises:
        PanopticError: if LiteRT cannot hold the model, or the file gives other results than it.
    """
    size = resized_size(*image_size, predictor.short_side, predictor.max_long_side)
    model = StoredModel(predictor.model)

    # As for XLA: of the portable kernels alone, in static shapes.
    @tf.function(
        input_signature=[tf.TensorSpec([1, *size, 3], tf.float32, name=schema.IMAGES)],
        autograph=False,
        jit_compile=True,
    )
    def network(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return model({schema.IMAGES: images, schema.IMAGE_SIZES: tf.constant([size])})

    content = convert(network, model.weights, path)
    image = example_image(*size).astype(np.float32)[None]
    _compare(network(tf.constant(image)), run_litert(content, image), path)
    with replacing(path) as partial:
        partial.write_bytes(content)


def convert(network: Any, weights: Sequence[tf.Variable], path: str | os.PathLike) -> bytes:
    """Returns a LiteRT file of a `tf.function` with a signature.

    Args:
        network: the function.
        weights: list of the `tf.Variable`s that it reads.
        path: of the file, for the message.

    Raises:
        PanopticError: if LiteRT cannot hold it.
    """
    module = tf.Module()
    module.weights = weights
    with tempfile.TemporaryDirectory() as folder:  # by way of which the outputs keep their names
        function = network.get_concrete_function()
        tf.saved_model.save(module, folder, function, WITHOUT_GRADIENTS)
        try:
            return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except Exception as error:  # the converter's errors have no common base of their own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise PanopticError(f"{path}: LiteRT cannot hold this model: {reason}") from None


def run_litert(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a LiteRT file on float32 `[1, H, W, 3]`; returns its outputs by their names.

    Raises:
        ConfigError: if there is no LiteRT.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ConfigError("needs ai-edge-litert: pip install 'tf-panoptic-fpn[litert]'") from None
    interpreter: Any = Interpreter(model_content=content)
    runner = interpreter.get_signature_runner(SIGNATURE)
    return dict(runner(**{schema.IMAGES: images}))


def _compare(
    expected: dict[str, tf.Tensor], received: dict[str, np.ndarray], path: str | os.PathLike
) -> None:
    for name in (schema.SCORES, schema.SEMANTIC_LOGITS):
        if name in expected:
            difference = np.abs(received[name] - expected[name].numpy()).max(initial=0)
            scale = max(1.0, np.abs(expected[name]).max(initial=0))
            if difference > MAX_SCORE * scale:
                raise PanopticError(
                    f"{path}: what was exported differs from the model: {name} by "
                    f"{difference:.2g}; it was not kept"
                )
