"""The arguments by which `predict`, `evaluate` and `export` are given a model."""

import argparse
from typing import TYPE_CHECKING

from tf_panoptic_fpn.errors import ConfigError

if TYPE_CHECKING:
    from tf_panoptic_fpn.inference.model_source import ModelSource


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("--model", "--workdir", "--weights", "--saved-model"),
        dest="models",
        action="append",
        default=[],
        metavar="MODEL",
        help="folder of a finished run, .keras file, folder of a SavedModel, .onnx or .xml, "
        "checkpoint of detectron2, torchvision or mmdetection, or name of a published model",
    )
    parser.add_argument(
        "--config", metavar="YAML", help="sizes, thresholds and data, where the model is not a run"
    )
    parser.add_argument(
        "--categories", metavar="JSON", help="categories, where the model does not bring them"
    )
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")


def model_source(arguments: argparse.Namespace) -> "ModelSource":
    """Returns the `ModelSource` that is asked for."""
    from tf_panoptic_fpn.inference.model_source import find_model

    if len(arguments.models) != 1:
        received = ", ".join(arguments.models) or "none"
        raise ConfigError(f"One model must be given (--model). Received: {received}")
    return find_model(arguments.models[0], arguments.config, arguments.categories, arguments.set)
