"""The precision of a run: what its layers compute in, and what they keep for the gradients."""

import contextlib

import keras

from tf_panoptic_fpn.backbones.resnet import block_names
from tf_panoptic_fpn.config import TrainConfig
from tf_panoptic_fpn.training.loss_scale import LossScale


def layer_dtype(settings: TrainConfig) -> str | None:
    """Returns the dtype policy of the model; None, Keras' own, for float32."""
    return None if settings.precision == "float32" else settings.precision


def build_loss_scale(settings: TrainConfig) -> LossScale | None:
    """Returns a `LossScale` for float16; the others have float32's exponents and need none."""
    return LossScale() if settings.precision == "mixed_float16" else None


def rematerialization(settings: TrainConfig) -> contextlib.AbstractContextManager:
    """Returns the context in which to build the model.

    With `train.rematerialize` a residual block keeps its input alone, and its inside is computed
    anew for the gradients.

    Reference: Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
    """
    if not settings.rematerialize:
        return contextlib.nullcontext()
    return keras.RematScope("list_of_layers", layer_names=block_names())
