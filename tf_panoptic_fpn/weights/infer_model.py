"""The model that a complete checkpoint belongs to, read off its shapes."""

import re
from collections.abc import Callable
from typing import Any

from tf_panoptic_fpn.backbones.resnet import BLOCKS, ResNet
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.weights.pytorch_names import IMAGENET_STD
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.source import BOTTOM_UP, STEM, Source


def infer_model(source: Source) -> PanopticFPN:
    """Builds the `PanopticFPN` that a `Source` of a whole detector fits.

    Args:
        source: a `Source` that holds the arguments of its model; or one of a Panoptic FPN, a Mask
            R-CNN or a Semantic FPN. Its `expects` sets preprocessing and stride; without it,
            detectron2's configurations do: a ResNet strides in the first 1x1, a ResNeXt in the 3x3
            and divides pixels by a deviation.

    Returns:
        A `PanopticFPN` with random weights.

    Raises:
        WeightsError: if the source lacks a part that the sizes are read from.
    """
    if source.model_config is not None:
        return _saved_model(source.model_config)
    shapes = {name: value.shape for name, value in source.arrays.items()}

    def size(name: str, axis: int = 0) -> int:
        try:
            return shapes[name][axis]
        except (KeyError, IndexError):
            raise WeightsError(
                f"the model cannot be read off the checkpoint, which lacks {name}; give --config"
            ) from None

    arguments: dict[str, Any] = {"tasks": ()}
    arguments["fpn_channels"] = size("backbone.fpn_lateral2.weight")
    if "roi_heads.box_predictor.cls_score.weight" in shapes:
        arguments["tasks"] += ("instance",)
        arguments["num_thing_classes"] = size("roi_heads.box_predictor.cls_score.weight") - 1
        arguments["box_head_units"] = size("roi_heads.box_head.fc1.weight")
        arguments["mask_head_channels"] = size("roi_heads.mask_head.mask_fcn1.weight")
    if "sem_seg_head.predictor.weight" in shapes:
        arguments["tasks"] += ("semantic",)
        arguments["num_stuff_classes"] = size("sem_seg_head.predictor.weight") - 1
        arguments["semantic_channels"] = size("sem_seg_head.p2.0.weight")
    if not arguments["tasks"]:
        size("roi_heads.box_predictor.cls_score.weight")
    arguments.update(_infer_backbone(shapes, size, source.expects))
    for key in ("pixel_mean", "pixel_std", "roi_sampling_ratio"):
        if key in source.expects:
            arguments[key] = source.expects[key]
    return PanopticFPN(name="panoptic_fpn", **arguments)


def _saved_model(config: dict[str, Any]) -> PanopticFPN:
    backbone = config["backbone"]
    try:
        if not isinstance(backbone, str):
            backbone = ResNet.from_config(backbone["config"])
        return PanopticFPN(**{**config, "backbone": backbone})
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the file's model cannot be built: {error}") from None


def _infer_backbone(
    shapes: dict[str, tuple], size: Callable[..., int], expects: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of `PanopticFPN` that are about the backbone."""
    counts = []
    for stage in range(2, 6):
        pattern = rf"{re.escape(BOTTOM_UP)}\.res{stage}\.(\d+)\."
        blocks = [int(match[1]) for name in shapes if (match := re.match(pattern, name))]
        counts.append(max(blocks, default=-1) + 1)
    block = f"{BOTTOM_UP}.res2.0"
    bottleneck = f"{block}.conv3.weight" in shapes
    depths = [d for d, n in BLOCKS.items() if n == tuple(counts) and (d >= 50) == bottleneck]
    if not depths:
        raise WeightsError(f"no ResNet has {counts} blocks in res2 to res5")
    depth, stem_channels = depths[0], size(STEM)
    channels = size(f"{block}.conv{3 if bottleneck else 2}.weight")
    width = channels // 4 if bottleneck else channels
    inner = size(f"{block}.conv2.weight")
    groups = inner // size(f"{block}.conv2.weight", axis=1) if bottleneck else 1
    has_statistics = f"{BOTTOM_UP}.stem.conv1.norm.running_var" in shapes
    arguments = {
        "norm": "frozen_affine" if has_statistics else "group_norm",
        "stride_in_1x1": expects.get("stride_in_1x1", groups == 1),
    }
    if groups > 1:
        arguments["pixel_std"] = IMAGENET_STD
    if (stem_channels, width) == (64, 64):
        name = f"resnet{depth}" if groups == 1 else f"resnext{depth}_{groups}x{inner // groups}d"
        return {**arguments, "backbone": name}
    backbone = ResNet(
        depth,
        **{key: arguments[key] for key in ("norm", "stride_in_1x1")},
        stem_channels=stem_channels,
        width=width,
        groups=groups,
        group_width=inner // groups if groups > 1 else None,
        name="backbone",
    )
    return {**arguments, "backbone": backbone}
