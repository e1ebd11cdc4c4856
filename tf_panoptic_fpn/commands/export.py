"""`export`: writes a model as a SavedModel, for TF Serving."""

import argparse

from tf_panoptic_fpn.commands.model_arguments import add_model_arguments, model_source
from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow

SUMMARY = "write a model as a SavedModel, for TF Serving"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--output",
        help="folder of the SavedModel, by default saved_model/1 of the run; TF Serving wants a "
        "number, MODEL/1",
    )


def run(arguments: argparse.Namespace) -> None:
    import_tensorflow()
    from tf_panoptic_fpn.export.saved_model import export_model

    print(export_model(model_source(arguments), arguments.output))
