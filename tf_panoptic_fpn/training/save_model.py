"""The model that a run ends with."""

import pathlib

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.errors import TrainingError
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN


def save_model(model: PanopticFPN, path: pathlib.Path) -> None:
    """Writes the trained model; raises TrainingError if that cannot be."""
    try:
        with replacing(path) as file:
            model.save(file)
    except OSError as error:
        raise TrainingError(
            f"{path}: the model cannot be written: {error.strerror or error}; make room, and the "
            "same command writes it from the last checkpoint"
        ) from None
