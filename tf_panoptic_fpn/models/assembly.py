"""The layers of a `PanopticFPN`, made from its arguments, and how they lead from one to another."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.backbones.backbone import Backbone
from tf_panoptic_fpn.backbones.make_backbone import make_backbone
from tf_panoptic_fpn.models.box_head import BoxHead, Detections
from tf_panoptic_fpn.models.cascade import CascadeBoxHead
from tf_panoptic_fpn.models.fpn import FPN, branch_features
from tf_panoptic_fpn.models.mask_head import MaskHead
from tf_panoptic_fpn.models.normalize import Normalize
from tf_panoptic_fpn.models.proposals import Proposals
from tf_panoptic_fpn.models.rpn_head import RPNHead
from tf_panoptic_fpn.models.semantic_head import SemanticHead
from tf_panoptic_fpn.ops.boxes import BOX_DELTA_WEIGHTS
from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.schema import Tensor, Tensors

TASKS = ("instance", "semantic")
SEMANTIC_THINGS = ("other", "all")
HEAD_NORMS = ("none", "group_norm")
ROI_LEVELS = ("P2", "P3", "P4", "P5")
Layers = dict[str, Any]  # by the name of the model's attribute; None without the task


def make_layers(config: Mapping[str, Any], dtype: Any) -> Layers:
    """Makes the layers of a `PanopticFPN`.

    Args:
        config: the arguments of the model.
        dtype: policy of every layer.

    Raises:
        ValueError: if an argument that names a choice has another value, or two contradict.
    """
    check_choices(config)
    backbone = make_backbone(config["backbone"], config, dtype)
    pixels = [pixels_of(backbone, config, name) for name in ("pixel_mean", "pixel_std")]
    layers: Layers = {
        "normalize": Normalize(*pixels, dtype=dtype, name="normalize"),
        "backbone": backbone,
        "fpn": FPN(
            config["fpn_channels"],
            config["fpn_groups"],
            config["fpn_norm"],
            config["norm_groups"],
            config["separable_heads"],
            dtype=dtype,
            name="fpn",
        ),
        **dict.fromkeys(("semantic_head", "rpn_head", "proposals")),
        **dict.fromkeys(("box_head", "detections", "mask_head")),
    }
    if "semantic" in config["tasks"]:
        layers["semantic_head"] = _make_semantic_head(config, dtype)
    if "instance" in config["tasks"]:
        layers.update(_make_instance_layers(config, dtype))
    return layers


def pixels_of(
    backbone: keras.layers.Layer, config: Mapping[str, Any], name: str
) -> Sequence[float]:
    """`pixel_mean` or `pixel_std` of a model: as given, or the backbone's own."""
    given = config[name]
    return getattr(backbone, name, getattr(Backbone, name)) if given is None else given


def connect(layers: Layers, config: Mapping[str, Any], dtype: Any) -> tuple[Tensors, Tensors]:
    """Inference: symbolic inputs, the images and their sizes, and the outputs of `PanopticFPN`."""
    dtype = full_dtype(dtype.compute_dtype)
    images = keras.Input((None, None, 3), dtype=dtype, name=schema.IMAGES)
    image_sizes = keras.Input((2,), dtype="int32", optional=True, name=schema.IMAGE_SIZES)
    x, sizes = layers["normalize"](images, image_sizes)
    pyramid = layers["fpn"](layers["backbone"](x))
    features, semantic_features = branch_features(pyramid, config["fpn_groups"])
    outputs = {}
    if "instance" in config["tasks"]:
        rois, roi_scores, _ = layers["proposals"](features, *layers["rpn_head"](features), sizes)
        features = {name: features[name] for name in ROI_LEVELS}
        boxes, scores, classes, count = detect(
            layers["box_head"], layers["detections"], features, rois, roi_scores, sizes
        )
        outputs = {
            schema.BOXES: boxes,
            schema.SCORES: scores,
            schema.CLASSES: classes,
            schema.NUM_DETECTIONS: count,
            schema.MASK_PROBS: ops.sigmoid(layers["mask_head"](features, boxes, classes, count)),
        }
    if "semantic" in config["tasks"]:
        outputs[schema.SEMANTIC_LOGITS] = layers["semantic_head"](semantic_features)
    return {schema.IMAGES: images, schema.IMAGE_SIZES: image_sizes}, outputs


def detect(
    box_head: BoxHead | CascadeBoxHead,
    detections: Detections,
    features: Tensors,
    rois: Tensor,
    roi_scores: Tensor,
    image_sizes: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From proposals to detections, see `Detections`, through one box head or a cascade of them."""
    if isinstance(box_head, CascadeBoxHead):
        rois, class_logits, deltas = box_head(features, rois, image_sizes)
    else:
        class_logits, deltas = box_head(features, rois)
    return detections(rois, roi_scores, class_logits, deltas, image_sizes)


def stage_delta_weights(config: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """The delta weights of each box head: as given, or 1, 2, 3, ... times those of one head."""
    stages = max(len(config["cascade_ious"]), 1)
    given = config["cascade_delta_weights"]
    return given or tuple(
        tuple((i + 1) * weight for weight in BOX_DELTA_WEIGHTS) for i in range(stages)
    )


def check_choices(config: Mapping[str, Any]) -> None:
    """Raises `ValueError` for arguments that the layers do not check."""
    tasks, fpn_groups = config["tasks"], config["fpn_groups"]
    if config["separable_heads"] and fpn_groups > 1:
        raise ValueError("`separable_heads` takes `fpn_groups` of 1. Received: 2")
    if not tasks or sorted(tasks) != sorted(set(tasks) & set(TASKS)):
        raise ValueError(f"`tasks` must be one or both of {TASKS}. Received: {tasks}")
    if fpn_groups not in (1, 2) or fpn_groups > len(tasks):
        raise ValueError(
            f"`fpn_groups` must be 1, or 2 with both tasks. Received: {fpn_groups} with {tasks}"
        )
    things = config["semantic_things"]
    if things not in SEMANTIC_THINGS:
        raise ValueError(
            f"`semantic_things` must be one of {SEMANTIC_THINGS}. Received: {things!r}"
        )
    for name in ("fpn_norm", "box_head_norm", "mask_head_norm"):
        if config[name] not in HEAD_NORMS:
            raise ValueError(f"`{name}` must be one of {HEAD_NORMS}. Received: {config[name]!r}")
    ious, weights = config["cascade_ious"], config["cascade_delta_weights"]
    if ious and not config["class_agnostic_boxes"]:
        raise ValueError("`cascade_ious` takes `class_agnostic_boxes`. Received: False")
    if weights and len(weights) != len(ious):
        raise ValueError(
            "`cascade_delta_weights` must have as many rows as `cascade_ious`. Received: "
            f"{len(weights)} for {len(ious)}"
        )


def _make_semantic_head(config: Mapping[str, Any], dtype: Any) -> SemanticHead:
    others = 1 if config["semantic_things"] == "other" else config["num_thing_classes"]
    return SemanticHead(
        config["num_stuff_classes"] + others,
        config["semantic_channels"],
        config["semantic_design"],
        config["semantic_fuse"],
        config["norm_groups"],
        config["separable_heads"],
        dtype=dtype,
        name="semantic_head",
    )


def _make_instance_layers(config: Mapping[str, Any], dtype: Any) -> Layers:
    num_classes, sampling = config["num_thing_classes"], config["roi_sampling_ratio"]
    delta_weights, separable = stage_delta_weights(config), config["separable_heads"]
    return {
        "rpn_head": RPNHead(len(config["anchor_ratios"]), separable, dtype=dtype, name="rpn_head"),
        "proposals": Proposals(
            config["anchor_sizes"],
            config["anchor_ratios"],
            config["rpn_top_k_train"],
            config["rpn_top_k_test"],
            config["rpn_nms_iou"],
            dtype=dtype,
            name="proposals",
        ),
        "box_head": _make_box_head(config, delta_weights, dtype),
        "detections": Detections(
            config["score_threshold"],
            config["nms_iou"],
            config["max_detections"],
            delta_weights[-1],
            dtype=dtype,
            name="detections",
        ),
        "mask_head": MaskHead(
            num_classes,
            config["mask_head_channels"],
            sampling,
            config["mask_head_convolutions"],
            config["mask_head_norm"],
            config["norm_groups"],
            separable,
            dtype=dtype,
            name="mask_head",
        ),
    }


def _make_box_head(
    config: Mapping[str, Any], delta_weights: Sequence[Sequence[float]], dtype: Any
) -> BoxHead | CascadeBoxHead:
    head = {
        "num_classes": config["num_thing_classes"],
        "units": config["box_head_units"],
        "sampling_ratio": config["roi_sampling_ratio"],
        "design": config["box_head"],
        "channels": config["box_head_channels"],
        "norm": config["box_head_norm"],
        "norm_groups": config["norm_groups"],
    }
    options = {"dtype": dtype, "name": "box_head"}
    if config["cascade_ious"]:
        return CascadeBoxHead(config["cascade_ious"], delta_weights, head, **options)
    return BoxHead(**head, class_agnostic=config["class_agnostic_boxes"], **options)
