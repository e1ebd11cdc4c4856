"""A model as one ONNX file that needs nothing but a runtime."""

import inspect
import json
import os
import pathlib
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.backbones.network import NetworkBackbone
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.backbones.vision_transformer import VisionTransformer
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.onnx_int8 import calibration_images, quantize
from tf_panoptic_fpn.export.output_path import output_file
from tf_panoptic_fpn.export.same_results import check_same_results
from tf_panoptic_fpn.export.saved_model import weights_hash
from tf_panoptic_fpn.inference import exported_metadata
from tf_panoptic_fpn.inference.load_predictor import predictor_of
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.inference.onnx_runtime import OnnxPredictor
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.onnx_graph.model import build_graph
from tf_panoptic_fpn.onnx_graph.network import check_network
from tf_panoptic_fpn.section import as_lists
from tf_panoptic_fpn.version import __version__

# The arguments that the graph is built by, and those that matter in training alone. Another one
# may change the network in a way that nothing here knows of.
HELD = frozenset(
    [
        "num_thing_classes",
        "num_stuff_classes",
        "tasks",
        "backbone",
        "norm",
        "freeze_at",
        "stride_in_1x1",
        "fpn_channels",
        "fpn_groups",
        "semantic_channels",
        "semantic_design",
        "semantic_fuse",
        "semantic_things",
        "box_head_units",
        "mask_head_channels",
        "separable_heads",
        "drop_path",
        "anchor_sizes",
        "anchor_ratios",
        "rpn_top_k_train",
        "rpn_top_k_test",
        "rpn_nms_iou",
        "rpn_samples",
        "rois_per_image",
        "roi_sampling_ratio",
        "score_threshold",
        "nms_iou",
        "max_detections",
        "pixel_mean",
        "pixel_std",
        "lambda_instance",
        "lambda_semantic",
    ]
)
HELD_BY_RESNET = frozenset(
    [
        "depth",
        "norm",
        "freeze_at",
        "stride_in_1x1",
        "stem_channels",
        "width",
        "groups",
        "group_width",
    ]
)


def export_onnx(
    source: ModelSource, output: str | os.PathLike | None = None, int8: bool = False
) -> pathlib.Path:
    """Exports a model as an ONNX file.

    Args:
        source: `ModelSource`.
        output: path of the file, see `write_onnx`; by default `model.onnx` of its run.
        int8: bool, whether it computes in 8 bits, calibrated on images of the training split.

    Returns:
        The path, a `pathlib.Path`.

    Raises:
        ConfigError: if the model cannot be loaded or is exported already, the path ends otherwise
            than in `.onnx`, or the file cannot be written.
    """
    path = output_file(source, output, ".onnx")
    images = calibration_images(source) if int8 else ()
    write_onnx(typing.cast(Predictor, predictor_of(source)), path, images)
    return path


def write_onnx(
    predictor: Predictor, path: str | os.PathLike, calibration: Sequence[np.ndarray] = ()
) -> None:
    """Writes an ONNX file that does what a predictor does, in float32 or in 8 bits.

    Input: `images` uint8 `[B, H, W, 3]`, RGB; and, which may be left out, the thresholds of the
    merge, `score_threshold` and `overlap_threshold` float32 `[]` and `stuff_area` int32 `[]`.
    Outputs: those of the SavedModel's signature `tensor` but for the PNG, see
    `export.saved_model.export_saved_model`. Operators of opset 18 alone. Its metadata is listed in
    `inference.onnx_runtime`. Before it takes its place, onnxruntime runs it on a picture, and the
    results are compared.

    Args:
        predictor: a `Predictor`.
        path: of the file; one that is there is replaced.
        calibration: list of uint8 `[H, W, 3]`, images to find the ranges of 8 bits by; none: it
            computes in float32.

    Raises:
        ConfigError: if the model has something that the file cannot hold.
        PanopticError: if the file gives other results than the model.
    """
    predictor = in_float32(predictor)
    check_held(predictor.model)
    model = build_graph(predictor).model("panoptic_fpn", metadata_of(predictor))
    onnx.checker.check_model(model)
    with replacing(path) as partial:
        onnx.save(model, str(partial))
        check_same_results(predictor, OnnxPredictor(partial), path)
        if calibration:
            with replacing(partial) as quantized:
                quantize(partial, quantized, calibration)
            check_same_results(predictor, OnnxPredictor(partial), path, same_network=False)


def check_held(model: PanopticFPN) -> None:
    """Raises ConfigError, by name, for what a model has and the ONNX graph knows nothing of."""
    backbone = model.backbone
    _check_known(PanopticFPN, model.config, HELD)
    if type(backbone) is ResNet:
        _check_known(ResNet, backbone.config, HELD_BY_RESNET)
    elif isinstance(backbone, NetworkBackbone):
        check_network(backbone.network)
    elif not isinstance(backbone, VisionTransformer):
        raise ConfigError(
            "`model.backbone` must be a ResNet, a vision transformer or a functional network of "
            f"Keras for ONNX. Received: {type(backbone).__name__}"
        )


def _check_known(
    layer: type[keras.layers.Layer], config: Mapping[str, Any], held: Collection[str]
) -> None:
    defaults = inspect.signature(layer).parameters
    for name in sorted(set(config) - set(held)):
        # Of a model from a file, a tuple has become a list.
        if name not in defaults or as_lists(config[name]) != as_lists(defaults[name].default):
            raise ConfigError(
                f"`model.{name}` cannot be exported to ONNX. Received: {config[name]!r}"
            )


def in_float32(predictor: Predictor) -> Predictor:
    """Returns the same predictor, of a model that computes in float32."""
    model = predictor.model
    if model.dtype_policy.name == "float32":
        return predictor
    copy = PanopticFPN.from_config({**model.get_config(), "dtype": "float32"})
    copy.set_weights(model.get_weights())
    return predictor.with_model(copy)


def metadata_of(predictor: Predictor) -> dict[str, str]:
    """Returns what the file says of itself, see `inference.exported_metadata`."""
    settings = {
        "merge": predictor.merge.model_dump(),
        "semantic_things": predictor.categories.semantic_things,
        "pixel_range": predictor.pixel_range,
    }
    config = {
        "model": predictor.model.get_config(),
        "short_side": predictor.short_side,
        "max_long_side": predictor.max_long_side,
    }
    return {
        exported_metadata.CATEGORIES: json.dumps(predictor.categories.to_coco()),
        exported_metadata.SETTINGS: json.dumps(settings),
        exported_metadata.CONFIG: json.dumps(config, default=str),
        exported_metadata.VERSION: __version__,
        exported_metadata.WEIGHTS: weights_hash(predictor.model),
    }
