"""Names that torchvision and mmdetection share, and detectron2's for them."""

import re

import numpy as np

from tf_panoptic_fpn.weight_files.trainer_wrapping import Rules
from tf_panoptic_fpn.weights.source import BOTTOM_UP, STEM, Source

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB
IMAGENET_STD = (58.395, 57.12, 57.375)


def _block_part(part: str) -> str:
    """ "conv2" -> "conv2", "bn2" -> "conv2.norm", "downsample.1" -> "shortcut.norm"."""
    if part.startswith("downsample"):
        return "shortcut.norm" if part.endswith("1") else "shortcut"
    return f"conv{part[2:]}.norm" if part.startswith("bn") else part


# `{0}` is what stands before the names of a ResNet.
RESNET_RULES = (
    (r"{0}conv1\.weight", f"{BOTTOM_UP}.stem.conv1.weight"),
    (r"{0}bn1\.(\w+)", rf"{BOTTOM_UP}.stem.conv1.norm.\1"),
    (
        r"{0}layer(\d)\.(\d+)\.(conv\d|bn\d|downsample\.[01])\.(\w+)",
        lambda match: (
            f"{BOTTOM_UP}.res{int(match[1]) + 1}.{match[2]}.{_block_part(match[3])}.{match[4]}"
        ),
    ),
)
UNUSED = ("*num_batches_tracked", "fc.weight", "fc.bias")


def resnet_rules(prefix: str) -> Rules:
    """Rules for the names of a ResNet after a prefix, a regular expression."""
    return tuple((pattern.format(prefix), new) for pattern, new in RESNET_RULES)


def fpn_name(match: re.Match) -> str:
    """(kind, index from 0, rest) -> the convolution of a pyramid that counts from P2."""
    kind = "lateral" if match[1] in ("inner", "lateral") else "output"
    return f"backbone.fpn_{kind}{int(match[2]) + 2}.{match[3]}"


def mask_conv_name(match: re.Match) -> str:
    """(index from 0, rest) -> the convolution of a mask head that counts from 1."""
    return f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}"


def flip_stem(source: Source) -> None:
    """Reverses the input channels of the stem: a source on RGB becomes one on BGR."""
    source.change([STEM], lambda weight: weight[:, ::-1] if weight.ndim == 4 else weight)


def roll_classes(source: Source, layer: str, shift: int) -> None:
    """Moves the classes of a predictor on by `shift`; the last go to the front."""
    names = (f"{layer}.weight", f"{layer}.bias")
    source.change(names, lambda value: np.roll(value, shift, axis=0))


def drop_first(source: Source, layer: str, count: int) -> None:
    """Leaves the first outputs of a predictor out."""
    source.change((f"{layer}.weight", f"{layer}.bias"), lambda value: value[count:])
