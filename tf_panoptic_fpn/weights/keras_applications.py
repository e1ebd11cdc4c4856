"""Weights of Keras Applications: the ResNet50, 101 and 152 `.h5` files, with or without top."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint, read_checkpoint
from tf_panoptic_fpn.weights.report import ImportReport
from tf_panoptic_fpn.weights.source import BOTTOM_UP, Source, rename
from tf_panoptic_fpn.weights.torchvision import set_epsilon

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

EPSILON = 1.001e-5
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB

_PARTS = {"0": "shortcut", "1": "conv1", "2": "conv2", "3": "conv3"}
_ENDS = {
    "kernel": "weight",
    "bias": "conv_bias",
    "gamma": "norm.weight",
    "beta": "norm.bias",
    "moving_mean": "norm.running_mean",
    "moving_variance": "norm.running_var",
}
RULES = (
    (
        r"conv1_(?:conv|bn)/(\w+)",
        lambda match: f"{BOTTOM_UP}.stem.conv1.{_ENDS.get(match[1], match[1])}",
    ),
    (
        r"conv(\d)_block(\d+)_(\d)_(?:conv|bn)/(\w+)",
        lambda match: (
            f"{BOTTOM_UP}.res{match[1]}.{int(match[2]) - 1}."
            f"{_PARTS.get(match[3], match[3])}.{_ENDS.get(match[4], match[4])}"
        ),
    ),
)
_UNUSED = ("predictions/*", "probs/*", "fc1000/*")


def load_keras_applications(
    model: "PanopticFPN", source: str | os.PathLike | dict, **allowed: str | Iterable[str]
) -> ImportReport:
    """Sets a model's backbone from a ResNet of `keras.applications`; the heads keep their values.

    Its convolutions have biases, which the normalisation takes up, and its bottlenecks stride in
    the first 1x1. It was trained with `pixel_mean` (123.68, 116.779, 103.939).

    Args:
        model: a `PanopticFPN`.
        source: path of an `.h5` file, or a dict of arrays such as "conv1_conv/kernel".
        **allowed: what may differ: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of
            `set_weights`, in patterns.

    Returns:
        An `ImportReport`, which is printed too.

    Raises:
        WeightsError: on any mismatch that is not allowed; the model is unchanged then.
    """
    from tf_panoptic_fpn.weights.set_weights import set_weights

    return set_weights(model, keras_applications_source(read_checkpoint(source)), **allowed)


def keras_applications_source(checkpoint: Checkpoint) -> Source:
    """A `Checkpoint` of Keras Applications as a `Source`; see `load_keras_applications`."""
    source = rename(checkpoint, RULES, _UNUSED)
    for name in list(source.arrays):
        value = source.arrays[name]
        if name.endswith(".weight") and value.ndim == 4:
            source.arrays[name] = np.transpose(value, (3, 2, 0, 1))  # HWIO -> OIHW
        elif name.endswith(".conv_bias"):
            mean = f"{name.removesuffix('conv_bias')}norm.running_mean"
            if mean in source.arrays and source.arrays[mean].shape == value.shape:
                source.arrays[mean] = source.arrays[mean].astype("f8") - value  # conv + bias - mean
                source.origins[mean] += source.origins.pop(name)
                del source.arrays[name]
    set_epsilon(source, EPSILON)
    source.expects = {
        "pixel_mean": CAFFE_MEAN,
        "pixel_std": (1.0, 1.0, 1.0),
        "stride_in_1x1": True,
    }
    return source
