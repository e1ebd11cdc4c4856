"""The model that a complete checkpoint belongs to, read off its shapes."""

import re
from collections.abc import Callable
from typing import Any

from tf_panoptic_fpn.backbones.resnet import BLOCKS, ResNet
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.weights.pytorch_names import IMAGENET_STD
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.source import BOTTOM_UP, STEM, Source

STAGE_SCORES = r"roi_heads\.box_predictor\.\d\.cls_score\.weight"  # of a cascade


def infer_model(source: Source) -> PanopticFPN:
    """Builds the `PanopticFPN` that a `Source` of a whole detector fits.

    Args:
        source: a `Source` that holds the arguments of its model; or one of a Panoptic FPN, a Mask
            R-CNN or a Semantic FPN. Its `expects` sets preprocessing and stride; without it,
            detectron2's configurations do: a ResNet strides in the first 1x1, one with group norm
            and a ResNeXt in the 3x3, and the last divides pixels by a deviation. A group norm has
            32 groups, and a cascade of three heads is matched at .5, .6 and .7.

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
    arguments["fpn_norm"] = _infer_norm(shapes, "backbone.fpn_lateral2")
    stages = sum(bool(re.fullmatch(STAGE_SCORES, name)) for name in shapes)
    if stages or "roi_heads.box_predictor.cls_score.weight" in shapes:
        arguments["tasks"] += ("instance",)
        arguments.update(_infer_heads(shapes, size, stages))
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
    try:
        return PanopticFPN(name="panoptic_fpn", **arguments)
    except ValueError as error:  # of widths that no published model has
        raise WeightsError(f"the checkpoint's model cannot be built: {error}") from None


def _infer_heads(shapes: dict[str, tuple], size: Callable[..., int], stages: int) -> dict[str, Any]:
    """Arguments of `PanopticFPN` that are about the box head, or heads, and the mask head."""
    roi, stage = "roi_heads", ".0" if stages else ""
    box, predictor = f"{roi}.box_head{stage}", f"{roi}.box_predictor{stage}"
    mask = f"{roi}.mask_head.mask_fcn"
    classes = size(f"{predictor}.cls_score.weight") - 1
    arguments = {
        "num_thing_classes": classes,
        "box_head_units": size(f"{box}.fc1.weight"),
        "class_agnostic_boxes": bool(stages) or size(f"{predictor}.bbox_pred.weight") < 4 * classes,
        "cascade_ious": tuple(round(0.5 + 0.1 * i, 1) for i in range(stages)),
        "mask_head_channels": size(f"{mask}1.weight"),
        "mask_head_convolutions": sum(
            name.startswith(mask) and name.count(".") == 3 and name.endswith(".weight")
            for name in shapes
        ),
        "mask_head_norm": _infer_norm(shapes, f"{mask}1"),
    }
    if f"{box}.conv1.weight" in shapes:
        arguments["box_head"] = "four_conv_one_fc"
        arguments["box_head_channels"] = size(f"{box}.conv1.weight")
        arguments["box_head_norm"] = _infer_norm(shapes, f"{box}.conv1")
    return arguments


def _infer_norm(shapes: dict[str, tuple], layer: str) -> str:
    return "group_norm" if f"{layer}.norm.weight" in shapes else "none"


def _saved_model(config: dict[str, Any]) -> PanopticFPN:
    try:
        return PanopticFPN.from_config(config)
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
        "stride_in_1x1": expects.get("stride_in_1x1", groups == 1 and has_statistics),
        **_infer_deformable(shapes),
    }
    if groups > 1:
        arguments["pixel_std"] = IMAGENET_STD
    if (stem_channels, width) == (64, 64):
        name = f"resnet{depth}" if groups == 1 else f"resnext{depth}_{groups}x{inner // groups}d"
        return {**arguments, "backbone": name}
    backbone = ResNet(
        depth,
        **{key: value for key, value in arguments.items() if key != "pixel_std"},
        stem_channels=stem_channels,
        width=width,
        groups=groups,
        group_width=inner // groups if groups > 1 else None,
        name="backbone",
    )
    return {**arguments, "backbone": backbone}


def _infer_deformable(shapes: dict[str, tuple]) -> dict[str, Any]:
    """Two offsets for each of 9 taps, with version 2 a mask too, for each deform group."""
    stages, rows = [], 0
    for stage in range(2, 6):
        name = f"{BOTTOM_UP}.res{stage}.0.conv2_offset.weight"
        if name in shapes:
            stages.append(stage)
            rows = shapes[name][0]
    modulated = rows % 18 != 0
    return {
        "deformable_stages": tuple(stages),
        "deformable_groups": max(rows // (27 if modulated else 18), 1),
        "deformable_modulated": modulated,
    }
