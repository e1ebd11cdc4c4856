"""Weights of torchvision: `maskrcnn_resnet50_fpn`, and ResNet and ResNeXt classifiers."""

import numpy as np

from tf_panoptic_fpn.weights.detectron2 import IMAGENET_MEAN, IMAGENET_STD, flip_stem
from tf_panoptic_fpn.weights.files import read_checkpoint
from tf_panoptic_fpn.weights.plan import BOTTOM_UP, NORM_EPSILON
from tf_panoptic_fpn.weights.transfer import rename, transfer

_NUMBERED = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
# The names of a ResNet, which mmdet has too; `{0}` is what stands before them.
RESNET_RULES = (
    (r"{0}conv1\.weight", f"{BOTTOM_UP}.stem.conv1.weight"),
    (r"{0}bn1\.(\w+)", rf"{BOTTOM_UP}.stem.conv1.norm.\1"),
    (
        r"{0}layer(\d)\.(\d+)\.(conv\d|bn\d|downsample\.[01])\.(\w+)",
        lambda match: (
            f"{BOTTOM_UP}.res{int(match[1]) + 1}.{match[2]}."
            f"{_NUMBERED.get(match[3]) or _block_part(match[3])}.{match[4]}"
        ),
    ),
)
_RPN = {"conv": "conv", "cls_logits": "objectness_logits", "bbox_pred": "anchor_deltas"}
_RULES = (
    *((pattern.format(r"(?:backbone\.body\.)?"), new) for pattern, new in RESNET_RULES),
    (
        r"backbone\.fpn\.(inner|layer)_blocks\.(\d)(?:\.0)?\.(\w+)",
        lambda match: (
            f"backbone.fpn_{'lateral' if match[1] == 'inner' else 'output'}"
            f"{int(match[2]) + 2}.{match[3]}"
        ),
    ),
    (
        r"rpn\.head\.(conv|cls_logits|bbox_pred)(?:\.0\.0)?\.(\w+)",
        lambda match: f"proposal_generator.rpn_head.{_RPN[match[1]]}.{match[2]}",
    ),
    (r"roi_heads\.box_head\.fc6\.(\w+)", r"roi_heads.box_head.fc1.\1"),
    (r"roi_heads\.box_head\.fc7\.(\w+)", r"roi_heads.box_head.fc2.\1"),
    (
        r"roi_heads\.mask_head\.(\d)\.0\.(\w+)",
        lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}",
    ),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
)
_UNUSED = ("*num_batches_tracked", "fc.weight", "fc.bias")


def load_torchvision(
    model,
    source,
    allow_missing=(),
    allow_left_over=(),
    skip=(),
    allow_config=(),
    norm_epsilon=NORM_EPSILON,
):
    """Sets a model's weights from a state dict of torchvision.

    Reads `maskrcnn_resnet50_fpn` (background is class 0 there, 91 classes with it for COCO, so 90
    thing classes here) and classification ResNets and ResNeXts, which set the backbone alone. They
    stride in the 3x3 convolution and divide pixels by a deviation; the latter is folded into the
    stem.

    Args:
        model: a `PanopticFPN`.
        source: path of a `.pth` or `.npz` file, or a dict of name -> array.
        allow_missing: patterns (`fnmatch`) of the model's weights that may be absent.
        allow_left_over: patterns of names in the source that may stay unused.
        skip: patterns of the model's weights that keep their values.
        allow_config: "pixel_mean" or "stride_in_1x1", where the model may differ from the source.
        norm_epsilon: of the batch norms; 0 for the detectors published as `COCO_V1`.

    Returns:
        An `ImportReport`, which is printed too.

    Raises:
        WeightsError: on any mismatch that is not allowed; the model is unchanged then.
    """
    source = torchvision_source(read_checkpoint(source), norm_epsilon)
    return transfer(model, source, allow_missing, allow_left_over, skip, allow_config)


def torchvision_source(checkpoint, norm_epsilon=NORM_EPSILON):
    """A `Checkpoint` of torchvision as a `Source`; see `load_torchvision`."""
    source = rename(checkpoint.arrays, _RULES, _UNUSED)
    flip_stem(source)
    set_epsilon(source, norm_epsilon)
    for name, value in source.arrays.items():
        if name.startswith("roi_heads.box_predictor.cls_score."):
            source.arrays[name] = np.roll(value, -1, axis=0)  # background goes last
        elif name.startswith("roi_heads.box_predictor.bbox_pred."):
            source.arrays[name] = value[4:]
        elif name.startswith("roi_heads.mask_head.predictor."):
            source.arrays[name] = value[1:]
    source.expects = {
        "pixel_mean": IMAGENET_MEAN,
        "pixel_std": IMAGENET_STD,
        "stride_in_1x1": False,
    }
    if "roi_heads.mask_head.predictor.weight" in source.arrays:
        source.notes.append(
            "torchvision rounds its anchors and does not shift its RoIAlign by half a pixel; the "
            "same weights detect slightly otherwise here."
        )
    return source


def set_epsilon(source, epsilon):
    """Brings the variances to an epsilon of 1e-5 in the square root."""
    if epsilon == NORM_EPSILON:
        return
    for name, value in source.arrays.items():
        if name.endswith(".norm.running_var"):
            source.arrays[name] = value.astype("f8") + (epsilon - NORM_EPSILON)


def _block_part(part):
    """ "conv2" -> "conv2", "bn2" -> "conv2.norm"."""
    return f"conv{part[2:]}.norm" if part.startswith("bn") else part
