"""The weights that a new training starts from."""

from typing import TYPE_CHECKING

from tf_panoptic_fpn.weights.convert import open_source
from tf_panoptic_fpn.weights.set_weights import set_weights

if TYPE_CHECKING:
    from tf_panoptic_fpn.config import TrainConfig
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN


def load_initial_weights(model: "PanopticFPN", settings: "TrainConfig") -> None:
    """Sets a new model's weights from the checkpoint that a `TrainConfig` names, if any.

    Raises:
        WeightsError: if it cannot be read or does not fit.
    """
    if settings.initial_weights:
        set_weights(model, open_source(settings.initial_weights, settings.initial_weights_source))
