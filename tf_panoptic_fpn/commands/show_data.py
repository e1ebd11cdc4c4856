"""`show-data`: draws augmented training samples."""

import argparse
import pathlib
import tempfile
from typing import TYPE_CHECKING

from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from tf_panoptic_fpn.config import Config

SUMMARY = "draw augmented training samples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument("--output", required=True, help="picture to write, e.g. sheet.png")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--count", type=int, default=16, help="samples")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")


def run(arguments: argparse.Namespace) -> None:
    if arguments.count < 1:
        raise ConfigError(f"--count must be above 0. Received: {arguments.count}")
    extension = pathlib.Path(arguments.output).suffix.lower()
    if extension not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"--output must be a .png or .jpg. Received: {arguments.output}")
    if not pathlib.Path(arguments.output).absolute().parent.is_dir():
        raise ConfigError(f"{arguments.output}: its folder does not exist")
    import_tensorflow()
    from PIL import Image

    from tf_panoptic_fpn.config import load_config
    from tf_panoptic_fpn.data.splits import resolve_data

    with tempfile.TemporaryDirectory() as folder:  # for the embedded data set
        config = resolve_data(load_config(arguments.config, arguments.set), folder)
        sheet = draw_split(config, arguments.split, arguments.count)
    try:
        Image.fromarray(sheet).save(arguments.output)
    except OSError as error:
        raise ConfigError(f"{arguments.output}: cannot be written: {error.strerror}") from None
    print(f"{arguments.output}: {sheet.shape[1]}x{sheet.shape[0]} pixels")


def draw_split(config: "Config", name: str, count: int) -> "np.ndarray":
    """Draws the first samples that a run would train on.

    Args:
        config: `Config` with paths.
        name: "train" or "validation"; its images are resized and flipped as the split says.
        count: int, samples.

    Returns:
        uint8 `[H, W, 3]`, see `contact_sheet`.
    """
    from tf_panoptic_fpn.data.pipeline import training_dataset
    from tf_panoptic_fpn.data.splits import load_index
    from tf_panoptic_fpn.datatools.show import contact_sheet

    # The pipeline reads `train`; one image a batch has no padding.
    data = config.data.model_copy(update={"train": getattr(config.data, name), "canvases": ()})
    index = load_index(data, "train", config.model.semantic_things)
    batches = training_dataset(index, data, 1, count, config.train.seed).as_numpy_iterator()
    return contact_sheet(batches, index.categories)
