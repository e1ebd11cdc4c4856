"""Weights of mmdetection: Panoptic FPN and Mask R-CNN."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint, read_checkpoint
from tf_panoptic_fpn.weights.pytorch_names import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    UNUSED,
    flip_stem,
    fpn_name,
    mask_conv_name,
    resnet_rules,
    roll_classes,
)
from tf_panoptic_fpn.weights.report import ImportReport
from tf_panoptic_fpn.weights.source import Source, rename

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

STYLES = ("pytorch", "caffe")

_RPN = {"rpn_conv": "conv", "rpn_cls": "objectness_logits", "rpn_reg": "anchor_deltas"}
_BOX = {"fc_cls": "cls_score", "fc_reg": "bbox_pred"}
_MASK = {"upsample": "deconv", "conv_logits": "predictor"}
RULES = (
    *resnet_rules(r"backbone\."),
    (r"neck\.(lateral|fpn)_convs\.(\d)\.conv\.(\w+)", fpn_name),
    (
        r"rpn_head\.(rpn_conv|rpn_cls|rpn_reg)\.(\w+)",
        lambda match: f"proposal_generator.rpn_head.{_RPN[match[1]]}.{match[2]}",
    ),
    (
        r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(\w+)",
        lambda match: f"roi_heads.box_head.fc{int(match[1]) + 1}.{match[2]}",
    ),
    (
        r"roi_head\.bbox_head\.(fc_cls|fc_reg)\.(\w+)",
        lambda match: f"roi_heads.box_predictor.{_BOX[match[1]]}.{match[2]}",
    ),
    (r"roi_head\.mask_head\.convs\.(\d)\.conv\.(\w+)", mask_conv_name),
    (
        r"roi_head\.mask_head\.(upsample|conv_logits)\.(\w+)",
        lambda match: f"roi_heads.mask_head.{_MASK[match[1]]}.{match[2]}",
    ),
    (
        r"semantic_head\.conv_upsample_layers\.(\d)\.conv\.(\d)\.(conv|gn)\.(\w+)",
        lambda match: (
            f"sem_seg_head.p{int(match[1]) + 2}.{2 * int(match[2])}."
            f"{'norm.' if match[3] == 'gn' else ''}{match[4]}"
        ),
    ),
    (r"semantic_head\.conv_logits\.(\w+)", r"sem_seg_head.predictor.\1"),
)
_UNUSED = (*UNUSED, "data_preprocessor.*")


def load_mmdet(
    model: "PanopticFPN",
    source: str | os.PathLike | dict,
    style: str = "pytorch",
    **allowed: str | Iterable[str],
) -> ImportReport:
    """Sets a model's weights from a checkpoint of mmdetection (2.x and 3.x).

    Reads Panoptic FPN, whose semantic branch has the things last, and Mask R-CNN. Background is the
    last class there as here.

    Args:
        model: a `PanopticFPN`.
        source: path of a `.pth` or `.npz` file, or a dict of name -> array.
        style: the `style` of its backbone: "pytorch" (RGB, divided by a deviation, stride in the
            3x3) or "caffe" (BGR, stride in the first 1x1).
        **allowed: what may differ: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of
            `set_weights`, in patterns.

    Returns:
        An `ImportReport`, which is printed too.

    Raises:
        WeightsError: on any mismatch that is not allowed; the model is unchanged then.
        ValueError: if `style` is unknown.
    """
    from tf_panoptic_fpn.weights.set_weights import set_weights

    return set_weights(model, mmdet_source(read_checkpoint(source), style), **allowed)


def mmdet_source(checkpoint: Checkpoint, style: str = "pytorch") -> Source:
    """A `Checkpoint` of mmdetection as a `Source`; see `load_mmdet`."""
    if style not in STYLES:
        raise ValueError(f"`style` must be one of {STYLES}. Received: style={style!r}")
    source = rename(checkpoint, RULES, _UNUSED)
    source.expects = {"pixel_mean": IMAGENET_MEAN, "pixel_std": (1.0, 1.0, 1.0)}
    source.expects["stride_in_1x1"] = style == "caffe"
    if style == "pytorch":
        flip_stem(source)
        source.expects["pixel_std"] = IMAGENET_STD
    roll_classes(source, "sem_seg_head.predictor", 1)  # things go first
    return source
