"""Weights of detectron2: Panoptic FPN, Mask R-CNN FPN, and backbones in its or Caffe2's names."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint, read_checkpoint
from tf_panoptic_fpn.weights.pytorch_names import IMAGENET_MEAN, IMAGENET_STD, flip_stem
from tf_panoptic_fpn.weights.report import ImportReport
from tf_panoptic_fpn.weights.source import BOTTOM_UP, Source, rename

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

CHANNEL_ORDERS = ("bgr", "rgb")

_PARTS = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_ENDS = {
    "w": "weight",
    "b": "bias",
    **dict.fromkeys(("bn_s", "bn_gamma", "gn_s"), "norm.weight"),
    **dict.fromkeys(("bn_b", "bn_beta", "gn_b"), "norm.bias"),
    **dict.fromkeys(("bn_rm", "bn_running_mean"), "norm.running_mean"),
    **dict.fromkeys(("bn_riv", "bn_running_var"), "norm.running_var"),
}
_C2_ENDS = "|".join(_ENDS)
RULES = (
    (
        r"((?:backbone\.(?:bottom_up|fpn_)|proposal_generator\.|sem_seg_head\.).*)",
        r"\1",
    ),
    (r"(roi_heads\.(?:box_head\.(?:\d\.)?(?:fc|conv)\d|box_predictor|mask_head\.(?!\d)).*)", r"\1"),
    (
        rf"(?:res_)?conv1_({_C2_ENDS})",
        lambda match: f"{BOTTOM_UP}.stem.conv1.{_ENDS[match[1]]}",
    ),
    (
        rf"res(\d)_(\d+)_(branch\w+?)_({_C2_ENDS})",
        lambda match: f"{BOTTOM_UP}.res{match[1]}.{match[2]}.{_PARTS[match[3]]}.{_ENDS[match[4]]}",
    ),
    (r"((?:stem|res[2-5])\..*)", rf"{BOTTOM_UP}.\1"),
)
_UNUSED = (
    "pixel_mean",
    "pixel_std",
    "*.num_batches_tracked",
    "*anchor_generator.cell_anchors.*",
    "stem.fc.*",  # the classifier of a backbone
    *("fc1000_*", "pred_[wb]", "*_momentum"),
    "conv1_b",  # detectron2 does not read it either
)


def load_detectron2(
    model: "PanopticFPN",
    source: str | os.PathLike | dict,
    channel_order: str | None = None,
    **allowed: str | Iterable[str],
) -> ImportReport:
    """Sets a model's weights from a checkpoint of detectron2.

    Reads Panoptic FPN, Mask R-CNN FPN, and backbones alone (which leave the heads as they are):
    in detectron2's names, in Caffe2's (`R-50.pkl`) or converted from torchvision. Where the stride
    of a bottleneck is, no other checkpoint says; it is the model's `stride_in_1x1`.

    Args:
        model: a `PanopticFPN`.
        source: path of a `.pkl`, `.pth` or `.npz` file, or a dict of name -> array.
        channel_order: "bgr" or "rgb", of the images that the source was trained on; by default RGB
            for a backbone converted from torchvision and for a file that holds ImageNet's mean in
            that order, and BGR for all else.
        **allowed: what may differ: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of
            `set_weights`, in patterns.

    Returns:
        An `ImportReport`, which is printed too.

    Raises:
        WeightsError: if the file cannot be read, a shape differs, or a name on either side has no
            match and is not allowed; the model is unchanged then.
        ValueError: if `channel_order` is unknown.
    """
    from tf_panoptic_fpn.weights.set_weights import set_weights

    return set_weights(model, detectron2_source(read_checkpoint(source), channel_order), **allowed)


def detectron2_source(checkpoint: Checkpoint, channel_order: str | None = None) -> Source:
    """A `Checkpoint` of detectron2 as a `Source`; see `load_detectron2`."""
    arrays = checkpoint.arrays
    from_torchvision = checkpoint.author == "torchvision"
    if channel_order is None:
        mean = arrays.get("pixel_mean", np.zeros(0)).ravel()
        has_rgb_mean = mean.size == 3 and np.allclose(mean, IMAGENET_MEAN, atol=0.01)
        channel_order = "rgb" if from_torchvision or has_rgb_mean else "bgr"
    if channel_order not in CHANNEL_ORDERS:
        raise ValueError(
            f"`channel_order` must be one of {CHANNEL_ORDERS}. Received: {channel_order!r}"
        )
    source = rename(checkpoint, RULES, _UNUSED)
    if channel_order == "rgb":
        flip_stem(source)
    _fill_frozen_statistics(source)
    if from_torchvision:
        source.expects = {
            "pixel_mean": IMAGENET_MEAN,
            "pixel_std": IMAGENET_STD,
            "stride_in_1x1": False,
        }
    for key in ("pixel_mean", "pixel_std"):  # in their channel order
        if key in arrays and arrays[key].size == 3:
            values = tuple(float(value) for value in arrays[key].ravel())
            source.expects[key] = values if channel_order == "rgb" else values[::-1]
    return source


def _fill_frozen_statistics(source: Source) -> None:
    """Gives a normalisation that is folded already, `bn_s` and `bn_b`, mean 0 and variance 1."""
    for name, origins in list(source.origins.items()):
        folded = origins[0].endswith("_bn_s")
        mean, variance = (
            name.removesuffix("weight") + end for end in ("running_mean", "running_var")
        )
        if folded and variance not in source.arrays:
            source.arrays[mean] = np.zeros_like(source.arrays[name])
            source.arrays[variance] = np.ones_like(source.arrays[name])
            source.origins[mean] = source.origins[variance] = ()
