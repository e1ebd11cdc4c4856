"""`export`: writes a model for serving, in one of several formats."""

import argparse
import pathlib

from tf_panoptic_fpn.commands.model_arguments import add_model_arguments, model_source
from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "write a model for serving, as a SavedModel or an ONNX file"
FORMATS = ("saved_model", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="saved_model", help="by default a SavedModel"
    )
    parser.add_argument(
        "--output",
        help="folder of the SavedModel, by default saved_model/1 of the run; TF Serving wants a "
        "number, MODEL/1. Or the ONNX file, by default model.onnx of the run",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="with --format=onnx: 8 bits, calibrated on images of the training data",
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.int8 and arguments.format != "onnx":
        raise ConfigError(f"--int8 is that of --format=onnx. Received: {arguments.format}")
    import_tensorflow()
    print(_export(arguments))


def _export(arguments: argparse.Namespace) -> pathlib.Path:
    if arguments.format == "saved_model":
        from tf_panoptic_fpn.export.saved_model import export_model

        return export_model(model_source(arguments), arguments.output)
    try:
        from tf_panoptic_fpn.export.onnx_file import export_onnx
    except ImportError as error:
        raise ConfigError(
            f"--format=onnx needs {error.name}: pip install 'tf-panoptic-fpn[onnx]'"
        ) from None
    return export_onnx(model_source(arguments), arguments.output, arguments.int8)
