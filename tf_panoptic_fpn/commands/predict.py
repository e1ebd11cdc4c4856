"""`predict`: segments images and videos."""

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.files import OUTPUTS, predict_files
from tf_panoptic_fpn.inference.model_source import load_predictor
from tf_panoptic_fpn.inference.saved_model import SavedModelPredictor
from tf_panoptic_fpn.inference.sources import find_inputs

SUMMARY = "segment images and videos"


def add_arguments(parser):
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", help="folder of a finished run")
    model.add_argument("--saved-model", help="folder of an exported SavedModel")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--batch-size", type=int, default=1, help="images of one size run at once")
    parser.add_argument(
        "--write",
        default="overlay,png,json",
        metavar="NAME,NAME",
        help=f"what to write: {', '.join(OUTPUTS)}; by default %(default)s",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, video, folder or pattern such as '*.jpg'"
    )


def run(arguments):
    write = arguments.write.split(",")
    unknown = sorted(set(write) - set(OUTPUTS))
    if unknown:
        raise ConfigError(f"--write takes {', '.join(OUTPUTS)}. Received: {', '.join(unknown)}")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be 1 or more. Received: {arguments.batch_size}")
    inputs = find_inputs(arguments.inputs, arguments.output)
    if arguments.workdir:
        predictor, _ = load_predictor(arguments.workdir)
    else:
        predictor = SavedModelPredictor(arguments.saved_model)
    predict_files(predictor, inputs, arguments.output, arguments.batch_size, write)
