"""Weights of detectron2's Panoptic FPN, in its names and layouts."""

import numpy as np

from tf_panoptic_fpn.models.conv_norm import ChannelAffine
from tf_panoptic_fpn.weights.report import ImportReport, WeightsError

FROZEN_NORM_EPSILON = 1e-5
_SWAP_XY = [1, 0, 3, 2]  # (dx, dy, dw, dh) <-> (dy, dx, dh, dw)


def load_detectron2(model, source, allow_missing=(), allow_left_over=()):
    """Sets a model's weights from arrays in detectron2's names.

    Convolutions are OIHW there, boxes xy, images BGR, and the first fully connected layer reads an
    NCHW tensor; the weights are converted to this package's NHWC, yx and RGB.

    Args:
        model: a `PanopticFPN`.
        source: path of an `.npz` file, or a dict of name -> array.
        allow_missing: names of the model's weights that may be absent from the source.
        allow_left_over: names in the source that may stay unused.

    Returns:
        An `ImportReport`.

    Raises:
        WeightsError: if a shape differs, or a name on either side has no match and is not allowed;
            the model is unchanged then.
    """
    if not isinstance(source, dict):
        with np.load(source) as file:
            source = dict(file)
    matched, assignments, missing, used = [], [], [], set()
    for variable, names, convert in _plan(model):
        absent = [name for name in names if name not in source]
        if absent:
            missing.append(variable.path)
            continue
        value = convert(*(np.asarray(source[name]) for name in names))
        if value.shape != tuple(variable.shape):
            raise WeightsError(
                f"{variable.path} must be {tuple(variable.shape)}. Received: {value.shape} from "
                f"{', '.join(names)}"
            )
        used.update(names)
        matched.append((variable.path, tuple(names), value.shape))
        assignments.append((variable, value))
    report = ImportReport(
        tuple(matched),
        tuple(sorted(set(source) - used - set(allow_left_over))),
        tuple(sorted(set(missing) - set(allow_missing))),
    )
    if report.left_over or report.missing:
        raise WeightsError(str(report))
    for variable, value in assignments:
        variable.assign(value)
    return report


def _plan(model):
    """Yields (variable of the model, names in the source, function of their arrays)."""
    backbone = model.backbone
    yield from _conv_norm(backbone.stem, "backbone.bottom_up.stem.conv1", _stem_kernel)
    for stage in ("res2", "res3", "res4", "res5"):
        for i, block in enumerate(getattr(backbone, stage)):
            prefix = f"backbone.bottom_up.{stage}.{i}"
            for j, conv in enumerate(block.branch, start=1):
                yield from _conv_norm(conv, f"{prefix}.conv{j}")
            if block.shortcut is not None:
                yield from _conv_norm(block.shortcut, f"{prefix}.shortcut")
    for i in range(4):
        yield from _layer(model.fpn.laterals[i], f"backbone.fpn_lateral{i + 2}", _kernel)
        yield from _layer(model.fpn.outputs[i], f"backbone.fpn_output{i + 2}", _kernel)
    for i, branch in enumerate(model.semantic_head.branches):
        for j, conv in enumerate(branch):  # odd positions hold the upsampling there
            yield from _conv_norm(conv, f"sem_seg_head.p{i + 2}.{2 * j}")
    yield from _layer(model.semantic_head.predictor, "sem_seg_head.predictor", _kernel)

    rpn, prefix = model.rpn_head, "proposal_generator.rpn_head"
    yield from _layer(rpn.conv, f"{prefix}.conv", _kernel)
    yield from _layer(rpn.objectness, f"{prefix}.objectness_logits", _kernel)
    yield from _layer(rpn.deltas, f"{prefix}.anchor_deltas", lambda w: _kernel(_swap_xy(w)))

    head, prefix = model.box_head, "roi_heads.box_head"
    yield from _layer(head.fc1, f"{prefix}.fc1", _first_dense)
    yield from _layer(head.fc2, f"{prefix}.fc2", np.transpose)
    prefix = "roi_heads.box_predictor"
    yield from _layer(head.classes, f"{prefix}.cls_score", np.transpose)
    yield from _layer(head.deltas, f"{prefix}.bbox_pred", lambda w: np.transpose(_swap_xy(w)))

    head, prefix = model.mask_head, "roi_heads.mask_head"
    for i, conv in enumerate(head.convs, start=1):
        yield from _layer(conv, f"{prefix}.mask_fcn{i}", _kernel)
    yield from _layer(head.deconv, f"{prefix}.deconv", _kernel)
    yield from _layer(head.predictor, f"{prefix}.predictor", _kernel)


def _layer(layer, name, convert):
    yield layer.kernel, [f"{name}.weight"], convert
    swaps = name.endswith(("anchor_deltas", "bbox_pred"))
    yield layer.bias, [f"{name}.bias"], _swap_xy if swaps else np.asarray


def _conv_norm(layer, name, convert=None):
    yield layer.conv.kernel, [f"{name}.weight"], convert or _kernel
    norm = layer.norm
    if isinstance(norm, ChannelAffine):
        keys = [f"{name}.norm.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
        yield norm.scale, [keys[0], keys[3]], _affine_scale
        yield norm.shift, keys, _affine_shift
    else:
        yield norm.gamma, [f"{name}.norm.weight"], np.asarray
        yield norm.beta, [f"{name}.norm.bias"], np.asarray


def _kernel(weight):
    """OIHW -> HWIO; a deconvolution's IOHW -> HWOI, as Keras wants it, is the same."""
    return np.transpose(weight, (2, 3, 1, 0))


def _stem_kernel(weight):
    return _kernel(weight)[:, :, ::-1]  # BGR -> RGB


def _swap_xy(weight):
    """Reorders the box deltas in the first axis, which holds groups of four."""
    groups = weight.reshape(-1, 4, *weight.shape[1:])
    return groups[:, _SWAP_XY].reshape(weight.shape)


def _first_dense(weight):
    """[out, C 7 7] -> [7 7 C, out]."""
    outputs = weight.shape[0]
    grid = weight.reshape(outputs, -1, 7, 7)
    return np.transpose(grid, (2, 3, 1, 0)).reshape(-1, outputs)


def _affine_scale(weight, variance):
    return weight / np.sqrt(variance + FROZEN_NORM_EPSILON)


def _affine_shift(weight, bias, mean, variance):
    return bias - mean * _affine_scale(weight, variance)
