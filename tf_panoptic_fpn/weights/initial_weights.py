"""The weights that a new run starts from."""

from tf_panoptic_fpn import weights


def load_initial_weights(model, settings):
    """Sets a new model's weights from the checkpoint that a `TrainConfig` names, if any.

    Raises:
        WeightsError: if it cannot be read or does not fit.
    """
    if settings.initial_weights:
        load = getattr(weights, f"load_{settings.initial_weights_source}")
        load(model, settings.initial_weights)
