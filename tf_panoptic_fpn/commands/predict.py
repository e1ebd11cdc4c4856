"""`predict`: segments images and videos."""

import argparse

from tf_panoptic_fpn.commands.model_arguments import add_model_arguments, model_source
from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "segment images and videos"
OUTPUTS = ("overlay", "png", "json", "coco")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--batch-size", type=int, default=1, help="images of one size run at once")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    parser.add_argument(
        "--write",
        default="overlay,png,json",
        metavar="NAME,NAME",
        help=f"what to write: {', '.join(OUTPUTS)}; by default %(default)s",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, video, folder or pattern such as '*.jpg'"
    )


def run(arguments: argparse.Namespace) -> None:
    write = arguments.write.split(",")
    unknown = sorted(set(write) - set(OUTPUTS))
    if unknown:
        raise ConfigError(f"--write takes {', '.join(OUTPUTS)}. Received: {', '.join(unknown)}")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be 1 or more. Received: {arguments.batch_size}")
    import_tensorflow()
    from tf_panoptic_fpn.inference.files import predict_files
    from tf_panoptic_fpn.inference.load_predictor import predictor_of
    from tf_panoptic_fpn.inference.sources import find_inputs

    inputs = find_inputs(arguments.inputs, arguments.output)
    source = model_source(arguments)
    predict_files(
        predictor_of(source, arguments.tta), inputs, arguments.output, arguments.batch_size, write
    )
