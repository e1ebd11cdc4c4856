"""`convert-weights`: imports another framework's weights."""

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.models.build_model import build_model
from tf_panoptic_fpn.weights.convert import OPTIONS, SOURCES, convert_weights
from tf_panoptic_fpn.weights.detectron2 import CHANNEL_ORDERS
from tf_panoptic_fpn.weights.mmdet import STYLES
from tf_panoptic_fpn.weights.plan import PREDICTORS

SUMMARY = "import another framework's weights"


def add_arguments(parser):
    parser.add_argument("--source", required=True, choices=sorted(SOURCES))
    parser.add_argument("--config", help="the model, where the file does not hold a whole one")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--skip-predictors", action="store_true", help="for other classes")
    parser.add_argument("--channel-order", choices=CHANNEL_ORDERS, help="of detectron2")
    parser.add_argument("--norm-epsilon", type=float, help="of torchvision")
    parser.add_argument("--style", choices=STYLES, help="of mmdet")
    for name in ("--allow-missing", "--allow-left-over", "--allow-config"):
        parser.add_argument(name, action="append", default=[], metavar="PATTERN")
    parser.add_argument("input", metavar="INPUT", help=".pkl, .pth, .npz or .h5")
    parser.add_argument("output", metavar="OUTPUT", help=".keras")


def run(arguments):
    config = arguments.config
    options = {name: getattr(arguments, name) for name in OPTIONS.values()}
    convert_weights(
        arguments.source,
        arguments.input,
        arguments.output,
        build_model(load_config(config, arguments.set).model) if config else None,
        options={name: value for name, value in options.items() if value is not None},
        allow_missing=arguments.allow_missing,
        allow_left_over=arguments.allow_left_over,
        allow_config=arguments.allow_config,
        skip=PREDICTORS if arguments.skip_predictors else (),
    )
