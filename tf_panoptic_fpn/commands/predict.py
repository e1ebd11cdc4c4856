"""`predict`: segments images and videos."""

import argparse

from tf_panoptic_fpn.commands.model_arguments import add_model_arguments, model_source
from tf_panoptic_fpn.commands.quiet_tensorflow import EVERY_BACKEND, import_tensorflow
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.large_images.grid import checked_overlap
from tf_panoptic_fpn.large_images.reader import SLIDE_SUFFIXES, import_tifffile

SUMMARY = "segment images and videos"
OUTPUTS = ("overlay", "png", "json", "coco", "labelme")
TILED_OUTPUTS = ("tif", "json", "coco")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--batch-size", type=int, default=1, help="images of one size run at once")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    parser.add_argument(
        "--tile", type=int, help="for images too large for memory: pixels of a tile's sides"
    )
    parser.add_argument(
        "--overlap", type=int, help="pixels that neighbouring tiles share; by default an eighth"
    )
    parser.add_argument(
        "--write",
        metavar="NAME,NAME",
        help=f"what to write: {', '.join(OUTPUTS)}, by default overlay,png,json; with --tile "
        f"{', '.join(TILED_OUTPUTS)}, by default tif,json",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, video, folder or pattern such as '*.jpg'"
    )


def run(arguments: argparse.Namespace) -> None:
    is_tiled = arguments.tile is not None
    known = TILED_OUTPUTS if is_tiled else OUTPUTS
    default = "tif,json" if is_tiled else "overlay,png,json"
    write = (default if arguments.write is None else arguments.write).split(",")
    unknown = sorted(set(write) - set(known))
    if unknown:
        option = "--write with --tile" if is_tiled else "--write"
        raise ConfigError(f"{option} takes {', '.join(known)}. Received: {', '.join(unknown)}")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be 1 or more. Received: {arguments.batch_size}")
    if is_tiled:
        checked_overlap(arguments.tile, arguments.overlap)
        import_tifffile()
    elif arguments.overlap is not None:
        raise ConfigError(f"--overlap is that of tiles: give --tile. Received: {arguments.overlap}")
    import_tensorflow(EVERY_BACKEND)
    from tf_panoptic_fpn.inference.files import predict_files
    from tf_panoptic_fpn.inference.load_predictor import predictor_of
    from tf_panoptic_fpn.inference.predictor import Predictor
    from tf_panoptic_fpn.inference.tiles import predict_large_files
    from tf_panoptic_fpn.media.sources import find_inputs

    inputs = find_inputs(arguments.inputs, arguments.output, SLIDE_SUFFIXES if is_tiled else ())
    predictor = predictor_of(model_source(arguments), arguments.tta)
    if isinstance(predictor, Predictor) and "coco" not in write:
        predictor.panoptic_only = True  # nothing else that is written has the instances
    output, batch_size = arguments.output, arguments.batch_size
    if is_tiled:
        predict_large_files(
            predictor, inputs, output, arguments.tile, arguments.overlap, batch_size, write
        )
    else:
        predict_files(predictor, inputs, output, batch_size, write)
