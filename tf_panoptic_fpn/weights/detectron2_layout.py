"""Which arrays of a checkpoint, in detectron2's names, make each weight of a `PanopticFPN`.

Convolutions are OIHW there, boxes xy, images BGR, and the first fully connected layer reads an NCHW
tensor; this package has HWIO, yx, RGB and NHWC. The importers rename their files to these names.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_panoptic_fpn.backbones.backbone import Backbone
from tf_panoptic_fpn.backbones.conv_norm import ChannelAffine, ConvNorm
from tf_panoptic_fpn.backbones.deformable_conv import DeformableConv2D
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.models.box_head import BoxHead
from tf_panoptic_fpn.models.cascade import CascadeBoxHead
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.source import BOTTOM_UP, NORM_EPSILON

_SWAP_XY = [1, 0, 3, 2]  # (dx, dy, dw, dh) <-> (dy, dx, dh, dw)
Convert = Callable[..., np.ndarray]
Plan = Iterator[tuple[keras.Variable, list[str], Convert]]


def weight_plan(model: PanopticFPN) -> Plan:
    """Yields (variable of the model, names in the checkpoint, function of their arrays).

    Args:
        model: a `PanopticFPN`. A backbone that is no `ResNet` has the names and layouts of Keras,
            see `backbone_names`.

    Raises:
        WeightsError: if the backbone is a layer of the caller's own.
    """
    if isinstance(model.backbone, ResNet):
        yield from _backbone_plan(model.backbone)
    elif not isinstance(model.backbone, Backbone):
        raise WeightsError(
            "Weights are imported into a ResNet or a network of Keras. Received: "
            f"{type(model.backbone).__name__}"
        )
    else:
        for name, variable in backbone_names(model.backbone).items():
            yield variable, [name], np.asarray
    for i in range(4):
        yield from _conv(model.fpn.laterals[i], f"backbone.fpn_lateral{i + 2}")
        yield from _conv(model.fpn.outputs[i], f"backbone.fpn_output{i + 2}")
    if getattr(model, "semantic_head", None) is not None:
        for i, branch in enumerate(model.semantic_head.branches):
            for j, conv in enumerate(branch):  # odd positions hold the upsampling there
                yield from _conv_norm(conv, f"sem_seg_head.p{i + 2}.{2 * j}")
        yield from _layer(model.semantic_head.predictor, "sem_seg_head.predictor", _kernel)
    if getattr(model, "box_head", None) is not None:
        yield from _instance_plan(model)


def backbone_names(backbone: keras.layers.Layer) -> dict[str, keras.Variable]:
    """Names in a checkpoint -> weights of a backbone that is no `ResNet`, by their paths in it.

    Keras counts what has no name through a process; here it is counted in the backbone.
    """
    prefix, names = f"{backbone.name}/", {}
    # What Keras calls layers and variables that have no name, less its underscores and number.
    automatic = {"variable", *(type(x).__name__.lower() for x in backbone._flatten_layers())}
    counted: dict[tuple[str, ...], list[str]] = {}

    def steady(parts: list[str]) -> str:
        """The last part of a path; one of Keras' own with its place among its like."""
        base = re.sub(r"_\d+$", "", parts[-1])
        if base.replace("_", "") not in automatic:
            return parts[-1]
        like = counted.setdefault((*parts[:-1], base), [])
        if parts[-1] not in like:
            like.append(parts[-1])
        place = like.index(parts[-1])
        return f"{base}_{place}" if place else base

    for variable in backbone.weights:
        if not _is_seed(variable):
            parts = variable.path.removeprefix(prefix).split("/")
            name = ".".join(steady(parts[: i + 1]) for i in range(len(parts)))
            names[f"{BOTTOM_UP}.{name}"] = variable
    return names


def _is_seed(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a random generator."""
    return not variable.dtype.startswith(("float", "bfloat"))


def detectron2_arrays(model: PanopticFPN) -> dict[str, np.ndarray]:
    """A model's weights in detectron2's names and layouts: the inverse of `weight_plan`, exact.

    A folded norm is written as one of mean 0, whose variance and epsilon make 1.

    Args:
        model: a `PanopticFPN`.

    Returns:
        Dict of name -> array, float64 for the variances.
    """
    arrays: dict[str, np.ndarray] = {}
    for variable, names, convert in weight_plan(model):
        value = ops.convert_to_numpy(variable)
        if convert is _affine_scale:
            weight, variance = names
            arrays[weight] = value
            arrays[variance] = np.full(value.shape, 1 - NORM_EPSILON)
        elif convert is _affine_shift:
            _, bias, mean, _ = names
            arrays[bias] = value
            arrays[mean] = np.zeros_like(value)
        else:
            arrays[names[0]] = _INVERSES[convert](value)
    return arrays


def _backbone_plan(backbone: ResNet) -> Plan:
    yield from _conv_norm(backbone.stem, f"{BOTTOM_UP}.stem.conv1", _stem_kernel)
    for stage in ("res2", "res3", "res4", "res5"):
        for i, block in enumerate(getattr(backbone, stage)):
            prefix = f"{BOTTOM_UP}.{stage}.{i}"
            for j, conv in enumerate(block.branch, start=1):
                yield from _conv_norm(conv, f"{prefix}.conv{j}")
                if isinstance(conv.conv, DeformableConv2D):
                    yield from _layer(conv.conv.offset, f"{prefix}.conv{j}_offset", _kernel)
            if block.shortcut is not None:
                yield from _conv_norm(block.shortcut, f"{prefix}.shortcut")


def _instance_plan(model: PanopticFPN) -> Plan:
    rpn, prefix = model.rpn_head, "proposal_generator.rpn_head"
    yield from _layer(rpn.conv, f"{prefix}.conv", _kernel)
    yield from _layer(rpn.objectness, f"{prefix}.objectness_logits", _kernel)
    yield from _layer(rpn.deltas, f"{prefix}.anchor_deltas", _deltas_kernel)

    if isinstance(model.box_head, CascadeBoxHead):
        for i, head in enumerate(model.box_head.stages):
            yield from _box_head_plan(head, f"box_head.{i}", f"box_predictor.{i}")
    else:
        yield from _box_head_plan(model.box_head, "box_head", "box_predictor")

    head, prefix = model.mask_head, "roi_heads.mask_head"
    for i, conv in enumerate(head.convs, start=1):
        yield from _conv(conv, f"{prefix}.mask_fcn{i}")
    yield from _layer(head.deconv, f"{prefix}.deconv", _kernel)
    yield from _layer(head.predictor, f"{prefix}.predictor", _kernel)


def _box_head_plan(head: BoxHead, name: str, predictor: str) -> Plan:
    for i, conv in enumerate(head.convs, start=1):
        yield from _conv(conv, f"roi_heads.{name}.conv{i}")
    for i, dense in enumerate(head.dense, start=1):
        convert = _first_dense if i == 1 else np.transpose
        yield from _layer(dense, f"roi_heads.{name}.fc{i}", convert)
    yield from _layer(head.classes, f"roi_heads.{predictor}.cls_score", np.transpose)
    yield from _layer(head.deltas, f"roi_heads.{predictor}.bbox_pred", _deltas_dense)


def _conv(layer: Any, name: str) -> Plan:
    """A convolution with bias, or with a norm."""
    if isinstance(layer, ConvNorm):
        yield from _conv_norm(layer, name)
    else:
        yield from _layer(layer, name, _kernel)


def _layer(layer: Any, name: str, convert: Convert) -> Plan:
    yield from _kernels(layer, name, convert)
    swaps = name.endswith(("anchor_deltas", "bbox_pred"))
    yield layer.bias, [f"{name}.bias"], _swap_xy if swaps else np.asarray


def _kernels(layer: Any, name: str, convert: Convert) -> Plan:
    if isinstance(layer, keras.layers.SeparableConv2D):
        yield layer.depthwise_kernel, [f"{name}.depthwise.weight"], np.asarray
        yield layer.pointwise_kernel, [f"{name}.pointwise.weight"], _kernel
    else:
        yield layer.kernel, [f"{name}.weight"], convert


def _conv_norm(layer: Any, name: str, convert: Convert | None = None) -> Plan:
    yield from _kernels(layer.conv, name, convert or _kernel)
    norm = layer.norm
    keys = [f"{name}.norm.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
    if isinstance(norm, ChannelAffine):
        yield norm.scale, [keys[0], keys[3]], _affine_scale
        yield norm.shift, keys, _affine_shift
        return
    yield norm.gamma, keys[:1], np.asarray
    yield norm.beta, keys[1:2], np.asarray
    if isinstance(norm, keras.layers.BatchNormalization):
        yield norm.moving_mean, keys[2:3], np.asarray
        yield norm.moving_variance, keys[3:], np.asarray


def _kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO; a deconvolution's IOHW -> HWOI, as Keras wants it, is the same."""
    return np.transpose(weight, (2, 3, 1, 0))


def _kernel_inverse(kernel: np.ndarray) -> np.ndarray:
    return np.transpose(kernel, (3, 2, 0, 1))


def _stem_kernel(weight: np.ndarray) -> np.ndarray:
    return _kernel(weight)[:, :, ::-1]  # BGR -> RGB


def _swap_xy(weight: np.ndarray) -> np.ndarray:
    """Reorders the box deltas in the first axis, which holds groups of four; its own inverse."""
    groups = weight.reshape(-1, 4, *weight.shape[1:])
    return groups[:, _SWAP_XY].reshape(weight.shape)


def _deltas_kernel(weight: np.ndarray) -> np.ndarray:
    return _kernel(_swap_xy(weight))


def _deltas_dense(weight: np.ndarray) -> np.ndarray:
    return np.transpose(_swap_xy(weight))


def _first_dense(weight: np.ndarray) -> np.ndarray:
    """[out, C 7 7] -> [7 7 C, out]."""
    outputs = weight.shape[0]
    grid = weight.reshape(outputs, -1, 7, 7)
    return np.transpose(grid, (2, 3, 1, 0)).reshape(-1, outputs)


def _first_dense_inverse(kernel: np.ndarray) -> np.ndarray:
    grid = kernel.reshape(7, 7, -1, kernel.shape[1])
    return np.transpose(grid, (3, 2, 0, 1)).reshape(kernel.shape[1], -1)


_INVERSES: dict[Callable, Callable] = {
    np.asarray: np.asarray,
    np.transpose: np.transpose,
    _kernel: _kernel_inverse,
    _stem_kernel: lambda kernel: _kernel_inverse(kernel[:, :, ::-1]),
    _swap_xy: _swap_xy,
    _deltas_kernel: lambda kernel: _swap_xy(_kernel_inverse(kernel)),
    _deltas_dense: lambda kernel: _swap_xy(np.transpose(kernel)),
    _first_dense: _first_dense_inverse,
}


def _affine_scale(weight: np.ndarray, variance: np.ndarray) -> np.ndarray:
    # In float64, so that the only rounding is that of the result.
    return weight / np.sqrt(np.asarray(variance, "float64") + NORM_EPSILON)


def _affine_shift(
    weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    return bias - mean * _affine_scale(weight, variance)
