"""The section `model`: the network."""

import difflib
from typing import Any, Literal, get_args

import pydantic

from tf_panoptic_fpn.section import (
    Broken,
    Count,
    Float,
    NotNegative,
    Positive,
    Section,
    Share,
    rule,
    setting,
)

ResNet = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
ResNeXt = Literal["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "resnext152_32x8d"]
RESNETS = (*get_args(ResNet), *get_args(ResNeXt))
FAMILIES = ("keras_applications/", "keras_hub/")
Norm = Literal["frozen_affine", "group_norm", "sync_batch_norm"]
HeadNorm = Literal["none", "group_norm"]
Stage = Literal[2, 3, 4, 5]
Task = Literal["instance", "semantic"]
DeltaWeights = tuple[Positive, Positive, Positive, Positive]
Sizes = tuple[Positive, Positive, Positive, Positive, Positive]
RGB = tuple[Float, Float, Float]
Deviations = tuple[Positive, Positive, Positive]
RESNET_PIXELS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (1.0, 1.0, 1.0)}


class ModelConfig(Section):
    """The arguments of `PanopticFPN`, one for one; `paper.md` says more of the choices."""

    num_thing_classes: int = setting(80, "thing classes of the data", ge=0)
    num_stuff_classes: int = setting(53, "stuff classes of the data", ge=0)
    tasks: tuple[Task, ...] = setting(
        ("instance", "semantic"), "one alone makes Mask R-CNN or Semantic FPN", min_length=1
    )
    backbone: str = setting(
        "resnet50",
        "the network below the pyramid: a ResNet, keras_applications/NAME, or keras_hub/ and the "
        "name or the folder of a preset",
        json_schema_extra={
            "anyOf": [
                {"enum": list(RESNETS)},
                {"type": "string", "pattern": f"^({'|'.join(FAMILIES)})."},
            ]
        },
    )
    norm: Norm = setting("frozen_affine", "normalisation of the backbone")
    freeze_at: int = setting(2, "stages that are not trained, 2 being stem and res2", ge=0, le=5)
    stride_in_1x1: bool = setting(
        True, "a bottleneck strides in its first 1x1, as in MSRA's weights"
    )
    norm_groups: Count = setting(32, "groups of every group norm")
    deformable_stages: tuple[Stage, ...] = setting(
        (), "stages of bottlenecks whose 3x3 is deformable, such as [3, 4, 5]"
    )
    deformable_groups: Count = setting(1, "groups of channels with offsets of their own")
    deformable_modulated: bool = setting(False, "a mask weighs each tap too (version 2)")
    drop_path: float = setting(
        0.0, "rate of stochastic depth at the last block, of backbones that have it", ge=0, lt=1
    )
    fpn_channels: Count = setting(256, "channels of the pyramid")
    fpn_groups: int = setting(1, "2 gives each task half of the pyramid's channels", ge=1)
    fpn_norm: HeadNorm = setting("none", "normalisation of the pyramid")
    semantic_channels: Count = setting(128, "width of the semantic branch", multiple_of=32)
    semantic_design: Literal["staged", "two_conv"] = setting(
        "staged", "Figure 3, or the early design"
    )
    semantic_fuse: Literal["sum", "concat"] = setting("sum", "how the branch joins its levels")
    semantic_things: Literal["other", "all"] = setting(
        "other", "things as one class, or each its own"
    )
    box_head: Literal["two_fc", "four_conv_one_fc"] = setting(
        "two_fc", "fully connected layers, or convolutions and one of them"
    )
    box_head_units: Count = setting(1024, "width of the box head's fully connected layers")
    box_head_channels: Count = setting(256, "width of the box head's convolutions")
    box_head_norm: HeadNorm = setting("none", "normalisation of the box head's convolutions")
    class_agnostic_boxes: bool = setting(False, "all classes share the box deltas")
    cascade_ious: tuple[Share, ...] = setting(
        (), "a box head for each, with the IoU from which a roi is foreground: [.5, .6, .7]"
    )
    cascade_delta_weights: tuple[DeltaWeights, ...] = setting(
        (), "of (dy, dx, dh, dw), a stage; empty: 1, 2, 3, ... times [10, 10, 5, 5]"
    )
    mask_head_channels: Count = setting(256, "width of the mask head")
    mask_head_convolutions: Count = setting(4, "3x3 convolutions of the mask head")
    mask_head_norm: HeadNorm = setting("none", "normalisation of the mask head")
    separable_heads: bool = setting(
        False, "3x3 of pyramid, RPN, semantic branch and mask head as depthwise ones and 1x1"
    )
    anchor_sizes: Sizes = setting((32.0, 64.0, 128.0, 256.0, 512.0), "pixels, for P2 to P6")
    anchor_ratios: tuple[Positive, ...] = setting((0.5, 1.0, 2.0), "height / width", min_length=1)
    rpn_top_k_train: tuple[Count, Count] = setting((2000, 1000), "proposals before and after NMS")
    rpn_top_k_test: tuple[Count, Count] = setting((1000, 1000), "the same at test")
    rpn_nms_iou: Share = setting(0.7, "IoU above which a better proposal suppresses another")
    rpn_samples: Count = setting(256, "anchors of an image that the loss samples")
    rois_per_image: Count = setting(512, "rois of an image that the loss samples")
    roi_sampling_ratio: int = setting(0, "RoIAlign's samples a bin and axis; 0 adapts", ge=0)
    score_threshold: Share = setting(0.05, "only scores above it are detections")
    nms_iou: Share = setting(0.5, "IoU above which a better detection suppresses its like")
    max_detections: Count = setting(100, "detections of an image")
    pixel_mean: RGB | None = setting(
        None, "subtracted from RGB 0 to 255; without, what the backbone was trained with"
    )
    pixel_std: Deviations | None = setting(None, "RGB is divided by it; without, as for the mean")
    lambda_instance: NotNegative = setting(1.0, "weight of the box and mask heads' losses")
    lambda_semantic: NotNegative = setting(0.5, "weight of the semantic loss")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _pixels_of_a_resnet(cls, tree: Any) -> Any:
        """Writes out what a ResNet was trained with, where the section says anything."""
        if not isinstance(tree, dict) or not tree:
            return tree
        is_resnet = tree.get("backbone", "resnet50") in RESNETS
        return {**RESNET_PIXELS, **tree} if is_resnet else tree

    @rule
    def known_backbone(self) -> Broken:
        name = self.backbone
        if name in RESNETS or any(name.startswith(f) and name != f for f in FAMILIES):
            return None
        close = difflib.get_close_matches(name, RESNETS, n=2)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        return "backbone", f"one of {(*RESNETS, *(f'{f}NAME' for f in FAMILIES))}{hint}"

    @rule
    def norm_of_the_backbone(self) -> Broken:
        if self.backbone not in RESNETS and self.norm == "group_norm":
            return "norm", "frozen_affine or sync_batch_norm with a backbone of Keras"
        return None

    @rule
    def drop_path_of_the_backbone(self) -> Broken:
        if self.backbone in RESNETS and self.drop_path:
            return "drop_path", f"0 with {self.backbone}"
        return None

    @rule
    def tasks_once(self) -> Broken:
        if len(set(self.tasks)) < len(self.tasks):
            return "tasks", "one or both of ('instance', 'semantic')"
        return None

    @rule
    def things_for_instances(self) -> Broken:
        if "instance" in self.tasks and not self.num_thing_classes:
            return "num_thing_classes", "above 0 with the task instance"
        return None

    @rule
    def classes_for_the_semantic_branch(self) -> Broken:
        has_others = "semantic" in self.tasks and self.semantic_things == "other"
        if has_others and not self.num_stuff_classes:
            return "num_stuff_classes", "above 0 with the task semantic"
        return None

    @rule
    def groups_of_the_pyramid(self) -> Broken:
        if self.fpn_groups != 1 and not self.fpn_groups == len(self.tasks) == 2:
            return "fpn_groups", "1, or 2 with both tasks"
        return None

    @rule
    def groups_of_separable_heads(self) -> Broken:
        if self.separable_heads and self.fpn_groups > 1:
            return "fpn_groups", "1 with separable_heads"
        return None

    @rule
    def channels_of_the_groups(self) -> Broken:
        if self.fpn_groups == 2 and self.fpn_channels % 2:
            return "fpn_channels", "a multiple of fpn_groups"
        return None

    @rule
    def channels_of_the_norms(self) -> Broken:
        normed = [("semantic_channels", "semantic" in self.tasks)]
        normed += [("fpn_channels", self.fpn_norm != "none")]
        normed += [("box_head_channels", self.box_head_norm != "none")]
        normed += [("mask_head_channels", self.mask_head_norm != "none")]
        for name, has_norm in normed:
            if has_norm and getattr(self, name) % self.norm_groups:
                return name, f"a multiple of the {self.norm_groups} norm_groups"
        return None

    @rule
    def deformable_bottlenecks(self) -> Broken:
        plain = self.backbone in ("resnet18", "resnet34") or self.backbone not in RESNETS
        if self.deformable_stages and plain:
            return "deformable_stages", f"empty: {self.backbone} has no bottlenecks"
        return None

    @rule
    def boxes_of_a_cascade(self) -> Broken:
        if self.cascade_ious and not self.class_agnostic_boxes:
            return "class_agnostic_boxes", "true with cascade_ious"
        return None

    @rule
    def weights_of_the_stages(self) -> Broken:
        weights, stages = len(self.cascade_delta_weights), len(self.cascade_ious)
        if weights and weights != stages:
            return "cascade_delta_weights", f"empty, or a row for each of {stages} cascade_ious"
        return None
