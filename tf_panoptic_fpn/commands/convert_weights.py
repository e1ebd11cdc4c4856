"""`convert-weights`: imports another framework's weights, or writes ours for others."""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

SUMMARY = "import another framework's weights"

# As in `weights.convert.SOURCES` and in the importers, which are imported when the command runs.
SOURCES = ("detectron2", "keras_applications", "mmdet", "tf_panoptic_fpn", "torchvision")
CHANNEL_ORDERS = ("bgr", "rgb")
STYLES = ("pytorch", "caffe")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", choices=SOURCES, help="by default told by the file's names")
    parser.add_argument("--config", help="the model, where the file does not hold a whole one")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--skip-predictors", action="store_true", help="for other classes")
    parser.add_argument("--channel-order", choices=CHANNEL_ORDERS, help="of detectron2")
    parser.add_argument("--norm-epsilon", type=float, help="of torchvision")
    parser.add_argument("--style", choices=STYLES, help="of mmdet")
    for name in ("--allow-missing", "--allow-left-over", "--allow-config"):
        parser.add_argument(name, action="append", default=[], metavar="PATTERN")
    parser.add_argument(
        "input", metavar="INPUT", help=".pkl, .pth, .npz, .safetensors, .h5, .keras"
    )
    parser.add_argument("output", metavar="OUTPUT", help=".keras or .safetensors")


def run(arguments: argparse.Namespace) -> None:
    from tf_panoptic_fpn.weights import PREDICTORS
    from tf_panoptic_fpn.weights.convert import OPTIONS, convert_weights

    options = {name: getattr(arguments, name) for name in OPTIONS.values()}
    convert_weights(
        arguments.source,
        _expanded(arguments.input),
        _expanded(arguments.output),
        _model(_expanded(arguments.config), arguments.set) if arguments.config else None,
        options={name: value for name, value in options.items() if value is not None},
        allow_missing=arguments.allow_missing,
        allow_left_over=arguments.allow_left_over,
        allow_config=arguments.allow_config,
        skip=PREDICTORS if arguments.skip_predictors else (),
    )


def _model(config: str, changes: Sequence[str]) -> "PanopticFPN":
    from tf_panoptic_fpn.config import load_config
    from tf_panoptic_fpn.models.build_model import build_model

    return build_model(load_config(config, changes).model)


def _expanded(path: str) -> str:
    return os.path.expanduser(os.path.expandvars(path))
