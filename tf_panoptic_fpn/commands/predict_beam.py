"""`predict-beam`: segments millions of images with Apache Beam."""

import argparse

from tf_panoptic_fpn.commands.import_beam import import_beam
from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError, PanopticError

SUMMARY = "segment millions of images with Apache Beam"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a SavedModel, or what else `predict` takes"
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", help="such as 'photos/**.jpg' or 'gs://bucket/*.jpg'"
    )
    parser.add_argument("--output", required=True, help="folder or address to write to")
    parser.add_argument(
        "--num-shards", type=int, metavar="N", help="files to write; by default one for 100 images"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images of one size run at once")
    parser.add_argument(
        "--beam",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="FLAG",
        help="all that follows is Beam's, such as --beam --runner=FlinkRunner",
    )


def run(arguments: argparse.Namespace) -> None:
    for name in ("num_shards", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be 1 or more. Received: {value}")
    import_tensorflow()
    import_beam()
    from tf_panoptic_fpn.batch.pipeline import predict_beam

    images, dead = predict_beam(
        arguments.model,
        arguments.pattern,
        arguments.output,
        num_shards=arguments.num_shards,
        batch_size=arguments.batch_size,
        beam_options=arguments.beam,
    )
    print(f"{arguments.output}: {images} images, {dead} dead inputs")
    if not images:
        raise PanopticError(f"{arguments.output}: no image could be read, see its dead-*.jsonl")
