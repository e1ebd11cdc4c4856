"""Predictors of a model from anywhere."""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.canvas_predictor import CanvasPredictor
from tf_panoptic_fpn.inference.devices import replica_devices
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.model_source import (
    CHECKPOINT,
    EXPORTED,
    GRAPHS,
    ONNX,
    OPENVINO,
    PUBLISHED,
    ModelSource,
    find_model,
)
from tf_panoptic_fpn.inference.onnx_runtime import OnnxPredictor
from tf_panoptic_fpn.inference.openvino_runtime import OpenvinoPredictor
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.saved_model import SavedModelPredictor
from tf_panoptic_fpn.inference.test_time_augmentation import AugmentedPredictor
from tf_panoptic_fpn.known_categories import categories_of_model
from tf_panoptic_fpn.models.build_model import load_model
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.weights.convert import open_source
from tf_panoptic_fpn.weights.infer_model import infer_model
from tf_panoptic_fpn.weights.set_weights import set_weights
from tf_panoptic_fpn.weights.zoo import from_pretrained

CLASSES = ("num_thing_classes", "num_stuff_classes", "semantic_things")


def load_predictor(
    model: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    tta: bool = False,
) -> ImagePredictor:
    """Loads a model from anywhere, ready for pictures.

    Args:
        model: the folder of a finished run; a `.keras` file; the folder of an exported SavedModel,
            an exported `.onnx` or OpenVINO's `.xml`; a checkpoint of detectron2, torchvision or
            mmdetection; or a name of `weights.MODEL_ZOO`, such as
            "detectron2/panoptic_fpn_R_50_3x", which is downloaded.
        config: path of a YAML file whose sections `merge`, `tta` and `data.validation` say how
            images are resized and merged; by default that of the run, else the defaults (a short
            side of 800 pixels, thresholds as in the paper). An export has them in its graph.
        categories: path of a JSON file with the categories, where the model does not bring them;
            by default COCO's or Cityscapes' if it has as many classes as these.
        overrides: `a.b=value` strings on the configuration.
        tta: bool, whether to look at each image several times, see `AugmentedPredictor`.

    Returns:
        An `ImagePredictor`. Called with an image (path, PIL image or uint8 `[H, W, 3]`) it returns
        its `Result`; with a list of images, a list.

    Raises:
        ConfigError: if the model cannot be found or loaded, or its categories are not known.
    """
    return predictor_of(find_model(model, config, categories, overrides), tta)


def predictor_of(source: ModelSource, tta: bool = False) -> ImagePredictor:
    """Makes the predictor of a `ModelSource` from its own configuration and categories."""
    if source.kind in GRAPHS and source.config:
        raise ConfigError(
            f"{source.name}: {_a(source.kind)} takes no --config: all is in its graph"
        )
    return build_predictor(source, source.load_config(), source.known_categories(), tta)


def load_predictors(
    source: ModelSource,
    config: Config,
    categories: CategoryTable,
    tta: bool = False,
    class_shares: Sequence[float] | None = None,
    loaded: ImagePredictor | None = None,
) -> Sequence[Callable[[np.ndarray], Result]]:
    """Loads a model once for each device, see `replica_devices`.

    Args:
        source: `ModelSource`.
        config: `Config`.
        categories: `CategoryTable` of the data set.
        tta: bool, whether to look at each image several times, see `AugmentedPredictor`.
        class_shares: see `Predictor`.
        loaded: the `predictor_of` the source, if it is loaded already; it is taken where there is
            one device.

    Returns:
        list of functions, each as an `ImagePredictor`; they may run at once.

    Raises:
        ConfigError: if the model cannot be loaded or does not fit the data set, or an exported one
            is to do what is not in it.
    """
    trained = source.known_categories() if source.workdir else None
    if trained:
        _check_same_ids(trained, categories, source)
    devices = replica_devices(config.train.replicas)
    if loaded and len(devices) == 1:
        return [loaded]
    predictors = []
    for device in devices:
        with tf.device(device):
            predictor = build_predictor(source, config, categories, tta, class_shares)
        predictors.append(functools.partial(_predict_on, device, predictor))
    return predictors


def build_predictor(
    source: ModelSource,
    config: Config,
    categories: CategoryTable | None,
    tta: bool = False,
    class_shares: Sequence[float] | None = None,
) -> ImagePredictor:
    """Makes the predictor of a `ModelSource`; the arguments are those of `load_predictors`.

    Args:
        categories: `CategoryTable`, or None: that of COCO or Cityscapes, by the model's classes.
    """
    fixed = [o for o in source.overrides if o.startswith(("merge.", "model.", "tta."))]
    if source.kind in GRAPHS and source.path:
        if tta or class_shares is not None or fixed:
            raise ConfigError(
                f"{source.path}: {_a(source.kind)}'s merge is in its graph: no --tta, no "
                "--balance-classes, no --set of merge.*, model.* or tta.*"
            )
        predictors = {
            EXPORTED: SavedModelPredictor,
            ONNX: OnnxPredictor,
            OPENVINO: OpenvinoPredictor,
        }
        return predictors[source.kind](source.path, categories)
    model = load_source(source)
    _check_same_model(model, config, source)
    if class_shares is not None and "semantic" not in model.config["tasks"]:
        raise ConfigError(f"{source.name}: --balance-classes needs a model with the task semantic")
    categories = categories or categories_of_model(model.config, source.name)
    _check_counts(model, categories, source)
    validation = config.data.validation
    predictor: ImagePredictor
    need_tensorflow({"--tta": tta, "--balance-classes": class_shares is not None})
    if keras.backend.backend() != "tensorflow":
        predictor = CanvasPredictor(
            model, categories, config.merge, validation, config.data.canvases
        )
    elif tta:
        predictor = AugmentedPredictor(
            model, categories, config.merge, validation, config.tta, class_shares
        )
    else:
        predictor = Predictor(model, categories, config.merge, validation, class_shares)
    predictor.pixel_range = config.data.pixel_range
    return predictor


def need_tensorflow(options: Mapping[str, bool]) -> None:
    """Raises ConfigError if an option is set, and the backend of Keras is not TensorFlow."""
    backend = keras.backend.backend()
    for name, is_set in options.items():
        if is_set and backend != "tensorflow":
            raise ConfigError(f"{name} needs TensorFlow as Keras' backend. Received: {backend!r}")


def load_source(source: ModelSource) -> PanopticFPN:
    """Loads the `PanopticFPN` of a `ModelSource` that is not exported."""
    if source.kind == PUBLISHED or source.path is None:
        return _quietly(from_pretrained, source.name)
    if source.kind == CHECKPOINT:
        given = open_source(source.path)
        model = infer_model(given)
        _quietly(set_weights, model, given)
        return model
    return load_model(source.path)


def _quietly(load: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function that prints the report of an import; its summary goes to stderr."""
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        loaded = load(*arguments)
    for line in report.getvalue().splitlines():
        if not line.startswith("  "):  # a line for each weight
            print(line, file=sys.stderr)
    return loaded


def _predict_on(device: str, predictor: ImagePredictor, image: np.ndarray) -> Result:
    with tf.device(device):
        return predictor(image)


def _check_same_model(model: PanopticFPN, config: Config, source: ModelSource) -> None:
    """The classes of a configuration, and what is set by hand, must be those of the model."""
    set_by_hand = {
        o.removeprefix("model.").partition("=")[0]
        for o in source.overrides
        if o.startswith("model.")
    }
    checked = {*set_by_hand, *(CLASSES if source.has_data else ())}
    for name in sorted(checked.intersection(model.config)):
        expected, received = _plain(model.config[name]), _plain(getattr(config.model, name))
        if received != expected:
            raise ConfigError(
                f"`model.{name}` must be {expected!r}, as in {source.path or source.name}. "
                f"Received: {received!r}"
            )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIO" else f"a {kind}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_counts(model: PanopticFPN, categories: CategoryTable, source: ModelSource) -> None:
    for name, count in (
        ("num_thing_classes", len(categories.things)),
        ("num_stuff_classes", len(categories.stuff)),
    ):
        task = "instance" if name == "num_thing_classes" else "semantic"
        if task in model.config["tasks"] and model.config[name] != count:
            kind = name.split("_")[1]
            raise ConfigError(
                f"{source.name}: the categories must hold {model.config[name]} {kind} classes, as "
                f"the model. Received: {count}"
            )


def _check_same_ids(trained: CategoryTable, categories: CategoryTable, source: ModelSource) -> None:
    for kind in ("thing_ids", "stuff_ids"):
        expected, received = getattr(trained, kind), getattr(categories, kind)
        if expected != received:
            raise ConfigError(
                f"{source.name}: the data set must have the {kind} of the training data, "
                f"{expected}. Received: {received}"
            )
