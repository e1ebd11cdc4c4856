"""What is made of a finished run: its predictor and its export."""

import pathlib

from tf_panoptic_fpn import build, serving
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.workdir import Workdir


def load_predictor(workdir, overrides=()):
    """Loads the `Predictor` of a finished run.

    Args:
        workdir: folder of the run.
        overrides: `a.b=value` strings on its configuration.

    Returns:
        The `Predictor` and the run's `Config`.

    Raises:
        ConfigError: if the folder holds no finished run.
    """
    files = Workdir(workdir)
    files.check_trained()
    config = load_config(files.config, overrides)
    model = build.load_model(files.model)
    categories = CategoryTable.load(files.categories)
    return serving.Predictor(model, categories, config.merge, config.data.validation), config


def export_run(workdir, output=None):
    """Exports a finished run; returns the folder: `output` or `workdir/saved_model/1`."""
    folder = pathlib.Path(output) if output else Workdir(workdir).saved_model
    Workdir(folder.parent).create()
    predictor, _ = load_predictor(workdir)
    serving.export_saved_model(predictor, folder)
    return folder
