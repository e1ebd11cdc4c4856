"""Weights of torchvision: `maskrcnn_resnet50_fpn`, and ResNet and ResNeXt classifiers."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint, read_checkpoint
from tf_panoptic_fpn.weights.pytorch_names import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    UNUSED,
    drop_first,
    flip_stem,
    fpn_name,
    mask_conv_name,
    resnet_rules,
    roll_classes,
)
from tf_panoptic_fpn.weights.report import ImportReport
from tf_panoptic_fpn.weights.source import NORM_EPSILON, Source, rename

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

_RPN = {"conv": "conv", "cls_logits": "objectness_logits", "bbox_pred": "anchor_deltas"}
RULES = (
    *resnet_rules(r"(?:backbone\.body\.)?"),
    (r"backbone\.fpn\.(inner|layer)_blocks\.(\d)(?:\.0)?\.(\w+)", fpn_name),
    (
        r"rpn\.head\.(conv|cls_logits|bbox_pred)(?:\.0\.0)?\.(\w+)",
        lambda match: f"proposal_generator.rpn_head.{_RPN[match[1]]}.{match[2]}",
    ),
    (r"roi_heads\.box_head\.fc6\.(\w+)", r"roi_heads.box_head.fc1.\1"),
    (r"roi_heads\.box_head\.fc7\.(\w+)", r"roi_heads.box_head.fc2.\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", mask_conv_name),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
)
_COCO_CLASSES = 91  # with background, of the published detector


def load_torchvision(
    model: "PanopticFPN",
    source: str | os.PathLike | dict,
    norm_epsilon: float | None = None,
    **allowed: str | Iterable[str],
) -> ImportReport:
    """Sets a model's weights from a state dict of torchvision.

    Reads `maskrcnn_resnet50_fpn` (background is class 0 there, 91 classes with it for COCO, so 90
    thing classes here) and classification ResNets and ResNeXts, which set the backbone alone. They
    stride in the 3x3 convolution and divide pixels by a deviation; the latter is folded into the
    stem.

    Args:
        model: a `PanopticFPN`.
        source: path of a `.pth` or `.npz` file, or a dict of name -> array.
        norm_epsilon: of the batch norms; by default 0 for a detector of 91 classes whose norms are
            frozen, which is what torchvision publishes as `COCO_V1`, and 1e-5 for all else.
        **allowed: what may differ: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of
            `set_weights`, in patterns.

    Returns:
        An `ImportReport`, which is printed too.

    Raises:
        WeightsError: on any mismatch that is not allowed; the model is unchanged then.
    """
    from tf_panoptic_fpn.weights.set_weights import set_weights

    return set_weights(model, torchvision_source(read_checkpoint(source), norm_epsilon), **allowed)


def torchvision_source(checkpoint: Checkpoint, norm_epsilon: float | None = None) -> Source:
    """A `Checkpoint` of torchvision as a `Source`; see `load_torchvision`."""
    source = rename(checkpoint, RULES, UNUSED)
    flip_stem(source)
    roll_classes(source, "roi_heads.box_predictor.cls_score", -1)  # background goes last
    drop_first(source, "roi_heads.box_predictor.bbox_pred", 4)
    drop_first(source, "roi_heads.mask_head.predictor", 1)
    source.expects = {
        "pixel_mean": IMAGENET_MEAN,
        "pixel_std": IMAGENET_STD,
        "stride_in_1x1": False,
    }
    if "roi_heads.mask_head.predictor.weight" in source.arrays:
        source.expects["roi_sampling_ratio"] = 2
        source.notes.append(
            "torchvision rounds its anchors and does not shift its RoIAlign by half a pixel; the "
            "same weights detect slightly otherwise here."
        )
    if norm_epsilon is None:
        norm_epsilon = 0.0 if _is_published_detector(checkpoint.arrays) else NORM_EPSILON
        if not norm_epsilon:
            source.notes.append(
                "Its batch norms are read without an epsilon, as torchvision reads COCO_V1; pass "
                "norm_epsilon=1e-5 for a detector that was not trained from that."
            )
    set_epsilon(source, norm_epsilon)
    return source


def _is_published_detector(arrays: dict) -> bool:
    classes = arrays.get("roi_heads.box_predictor.cls_score.bias")
    trained = any(name.endswith("num_batches_tracked") for name in arrays)
    return classes is not None and classes.shape == (_COCO_CLASSES,) and not trained


def set_epsilon(source: Source, epsilon: float) -> None:
    """Brings the variances to an epsilon of 1e-5 in the square root."""
    if epsilon == NORM_EPSILON:
        return
    for name, value in source.arrays.items():
        if name.endswith(".norm.running_var"):
            source.arrays[name] = value.astype("f8") + (epsilon - NORM_EPSILON)
