"""Checkpoints of other frameworks, made from one in detectron2's names by the inverse mapping."""

import re

import numpy as np

BOTTOM_UP = "backbone.bottom_up."
STD = np.array([58.395, 57.12, 57.375], np.float32)  # RGB
# The layers of a `PanopticFPN` that no backbone sets, and the arguments of a small one.
HEADS = ("fpn/", "semantic_head/", "rpn_head/", "box_head/", "mask_head/")
TINY = {
    "fpn_channels": 8,
    "semantic_channels": 32,
    "box_head_units": 8,
    "mask_head_channels": 8,
    "rpn_top_k_test": (20, 10),
    "num_thing_classes": 2,
    "num_stuff_classes": 2,
}


def to_caffe2(arrays, folded=False):
    """The backbone in the names of Caffe2: `res2_0_branch2a_w`, `res2_0_branch2a_bn_beta`."""
    parts = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    ends = {"weight": "gamma", "bias": "beta"}
    if folded:
        ends = {"weight": "s", "bias": "b"}
    result = {}
    for name, value in arrays.items():
        if not name.startswith(BOTTOM_UP):
            continue
        where = name.removeprefix(BOTTOM_UP).split(".")
        layer = "conv1" if where[0] == "stem" else f"{where[0]}_{where[1]}_{parts[where[2]]}"
        if "norm" not in where:
            result[f"{layer}_w"] = value
        elif not (folded and where[-1].startswith("running")):
            layer = "res_conv1" if where[0] == "stem" else layer
            result[f"{layer}_bn_{ends.get(where[-1], where[-1])}"] = value
    return result


def to_torchvision(arrays, body="backbone.body.", std=STD):
    """`maskrcnn_resnet50_fpn`: RGB over a deviation, background first."""
    result = _resnet(arrays, body, std)
    if body:
        for i in range(4):
            for end in ("weight", "bias"):
                inner = arrays[f"backbone.fpn_lateral{i + 2}.{end}"]
                result[f"backbone.fpn.inner_blocks.{i}.0.{end}"] = inner
                layer = arrays[f"backbone.fpn_output{i + 2}.{end}"]
                result[f"backbone.fpn.layer_blocks.{i}.0.{end}"] = layer
        for end in ("weight", "bias"):
            result |= _torchvision_heads(arrays, end)
    return result


def _torchvision_heads(arrays, end):
    rpn, roi = "proposal_generator.rpn_head", "roi_heads"
    classes = arrays[f"{roi}.box_predictor.cls_score.{end}"]
    deltas = arrays[f"{roi}.box_predictor.bbox_pred.{end}"]
    masks = arrays[f"{roi}.mask_head.predictor.{end}"]
    heads = {
        f"rpn.head.conv.0.0.{end}": arrays[f"{rpn}.conv.{end}"],
        f"rpn.head.cls_logits.{end}": arrays[f"{rpn}.objectness_logits.{end}"],
        f"rpn.head.bbox_pred.{end}": arrays[f"{rpn}.anchor_deltas.{end}"],
        f"roi_heads.box_head.fc6.{end}": arrays[f"{roi}.box_head.fc1.{end}"],
        f"roi_heads.box_head.fc7.{end}": arrays[f"{roi}.box_head.fc2.{end}"],
        f"roi_heads.box_predictor.cls_score.{end}": np.concatenate([classes[-1:], classes[:-1]]),
        f"roi_heads.box_predictor.bbox_pred.{end}": np.concatenate([deltas[:4] + 9, deltas]),
        f"roi_heads.mask_predictor.conv5_mask.{end}": arrays[f"{roi}.mask_head.deconv.{end}"],
        f"roi_heads.mask_predictor.mask_fcn_logits.{end}": np.concatenate([masks[:1] + 9, masks]),
    }
    for i in range(4):
        heads[f"roi_heads.mask_head.{i}.0.{end}"] = arrays[f"{roi}.mask_head.mask_fcn{i + 1}.{end}"]
    return heads


def to_mmdet(arrays, style="pytorch"):
    """mmdetection's Panoptic FPN: things last in the semantic branch."""
    result = _resnet(arrays, "backbone.", STD if style == "pytorch" else None)
    rules = {
        r"backbone\.fpn_lateral(\d)\.(\w+)": "neck.lateral_convs.{}.conv.{}",
        r"backbone\.fpn_output(\d)\.(\w+)": "neck.fpn_convs.{}.conv.{}",
        r"proposal_generator\.rpn_head\.conv\.(\w+)": "rpn_head.rpn_conv.{}",
        r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)": "rpn_head.rpn_cls.{}",
        r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)": "rpn_head.rpn_reg.{}",
        r"roi_heads\.box_head\.fc(\d)\.(\w+)": "roi_head.bbox_head.shared_fcs.{}.{}",
        r"roi_heads\.box_predictor\.cls_score\.(\w+)": "roi_head.bbox_head.fc_cls.{}",
        r"roi_heads\.box_predictor\.bbox_pred\.(\w+)": "roi_head.bbox_head.fc_reg.{}",
        r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)": "roi_head.mask_head.convs.{}.conv.{}",
        r"roi_heads\.mask_head\.deconv\.(\w+)": "roi_head.mask_head.upsample.{}",
        r"roi_heads\.mask_head\.predictor\.(\w+)": "roi_head.mask_head.conv_logits.{}",
        r"sem_seg_head\.predictor\.(\w+)": "semantic_head.conv_logits.{}",
    }
    for name, value in arrays.items():
        for pattern, template in rules.items():
            if match := re.fullmatch(pattern, name):
                start = 2 if "fpn" in pattern else 1
                parts = [str(int(p) - start) if p.isdecimal() else p for p in match.groups()]
                if "sem_seg" in pattern:
                    value = np.concatenate([value[1:], value[:1]])
                result[template.format(*parts)] = value
        if match := re.fullmatch(r"sem_seg_head\.p(\d)\.(\d)\.(norm\.)?(\w+)", name):
            level, position, norm, end = match.groups()
            layer = f"{int(level) - 2}.conv.{int(position) // 2}.{'gn' if norm else 'conv'}"
            result[f"semantic_head.conv_upsample_layers.{layer}.{end}"] = value
    return result


def _resnet(arrays, prefix, std):
    """torchvision's names of a ResNet; with `std` on RGB over it, else on BGR."""
    result = {}
    for name, value in arrays.items():
        if not name.startswith(BOTTOM_UP):
            continue
        where = name.removeprefix(BOTTOM_UP).split(".")
        end, is_norm = where[-1], "norm" in where
        if where[0] == "stem":
            if not is_norm and std is not None:
                value = value[:, ::-1] * std[:, None, None]
            result[f"{prefix}{'bn1' if is_norm else 'conv1'}.{end}"] = value
            continue
        layer = f"{prefix}layer{int(where[0][3]) - 1}.{where[1]}"
        if where[2] == "shortcut":
            part = f"downsample.{int(is_norm)}"
        else:
            part = ("bn" if is_norm else "conv") + where[2][4:]
        result[f"{layer}.{part}.{end}"] = value
    return result
