"""`export`: writes a model for serving, in one of several formats."""

import argparse
import pathlib

from tf_panoptic_fpn.commands.model_arguments import add_model_arguments, model_source
from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "write a model for serving: a SavedModel, for Triton, ONNX, OpenVINO or LiteRT"
FORMATS = ("saved_model", "triton", "onnx", "openvino", "litert")
IN_8_BITS = ("onnx", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="saved_model", help="by default a SavedModel"
    )
    parser.add_argument(
        "--output",
        help="folder of the SavedModel, by default saved_model/1 of the run; TF Serving wants a "
        "number, MODEL/1. Or that of Triton's models, by default triton of the run; or the file, "
        "by default model.onnx, model.xml or model.tflite of the run",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="ONNX and OpenVINO in 8 bits, calibrated on images of the training data",
    )


def run(arguments: argparse.Namespace) -> None:
    kind = arguments.format
    if arguments.int8 and kind not in IN_8_BITS:
        raise ConfigError(f"--int8 is for --format={' or '.join(IN_8_BITS)}. Received: {kind}")
    import_tensorflow()
    try:
        print(_export(arguments))
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxruntime", "openvino"):
            raise
        raise ConfigError(
            f"--format={kind} needs {error.name}: pip install 'tf-panoptic-fpn[{kind}]'"
        ) from None


def _export(arguments: argparse.Namespace) -> pathlib.Path:
    source = model_source(arguments)
    if arguments.format == "triton":
        from tf_panoptic_fpn.export.triton import export_triton

        return export_triton(source, arguments.output)
    if arguments.format == "onnx":
        from tf_panoptic_fpn.export.onnx_file import export_onnx

        return export_onnx(source, arguments.output, arguments.int8)
    if arguments.format == "openvino":
        from tf_panoptic_fpn.export.openvino_model import export_openvino

        return export_openvino(source, arguments.output, arguments.int8)
    if arguments.format == "litert":
        from tf_panoptic_fpn.export.litert_model import export_litert

        return export_litert(source, arguments.output)
    from tf_panoptic_fpn.export.saved_model import export_model

    return export_model(source, arguments.output)
