"""`demo`: a page to try a model on."""

import argparse
import os

from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "a page to try a model on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what `predict` takes")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every network"
    )
    parser.add_argument("--port", type=int, default=7860)


def run(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ConfigError("demo needs Gradio: pip install 'tf-panoptic-fpn[demo]'") from None
    import_tensorflow()
    from tf_panoptic_fpn.demo.page import example_images, launch
    from tf_panoptic_fpn.inference.load_predictor import predictor_of
    from tf_panoptic_fpn.inference.model_source import find_model

    source = find_model(arguments.model)
    launch(predictor_of(source), example_images(source), arguments.host, arguments.port)
