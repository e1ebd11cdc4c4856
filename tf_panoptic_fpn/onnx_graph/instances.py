"""The instance branch as ONNX nodes: proposals, RoIAlign, box head, detections, mask head."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from tf_panoptic_fpn.models.box_head import CANDIDATES_PER_PROPOSAL, BoxHead, Detections
from tf_panoptic_fpn.models.mask_head import MASK_SIZE, MaskHead
from tf_panoptic_fpn.models.proposals import STRIDES, Proposals
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value
from tf_panoptic_fpn.onnx_graph.layers import Features, array, keras_conv
from tf_panoptic_fpn.ops import roi_align
from tf_panoptic_fpn.ops.boxes import BOX_DELTA_WEIGHTS, MAX_LOG_SCALE, RPN_DELTA_WEIGHTS

NO_SCORE = np.float32(-np.inf)
LOWEST = np.finfo(np.float32).min  # what has no score lies below it, and NMS leaves it out


def anchors_of_level(
    g: Graph, feature: Value, stride: int, size: float, ratios: Sequence[float]
) -> Value:
    """`ops.anchors.pyramid_anchors` of one level: float32 `[h w A, 4]`."""
    half_widths = [size / math.sqrt(ratio) / 2 for ratio in ratios]
    cell = [
        [-ratio * half, -half, ratio * half, half]
        for ratio, half in zip(ratios, half_widths, strict=True)
    ]
    rows, columns = (g.range(g.size(feature, axis), "float32") * float(stride) for axis in (2, 3))
    rows = g.reshape(rows, -1, 1, 1, 1) * np.array([1, 0, 1, 0], np.float32)
    columns = g.reshape(columns, 1, -1, 1, 1) * np.array([0, 1, 0, 1], np.float32)
    return g.op("Reshape", rows + columns + np.array(cell, np.float32), [-1, 4])


def decode(
    g: Graph, deltas: Value, reference: Value, weights: Sequence[float], size: Value
) -> Value:
    """`ops.boxes.decode_boxes`, clipped to (H, W), float32 `[2]`."""
    if set(weights) != {1.0}:
        deltas = deltas / np.array(weights, np.float32)
    start, end = _halves(g, reference)
    sizes = end - start
    offsets, log_scales = _halves(g, deltas)
    centers = offsets * sizes + (start + sizes * 0.5)
    half_sizes = g.op("Exp", g.op("Min", log_scales, MAX_LOG_SCALE)) * 0.5 * sizes
    boxes = g.concat([centers - half_sizes, centers + half_sizes], axis=-1)
    return g.op("Min", g.op("Max", boxes, 0.0), g.concat([size, size]))


def areas(g: Graph, boxes: Value) -> Value:
    """`ops.boxes.box_areas`."""
    start, end = _halves(g, boxes)
    return g.op("ReduceProd", g.op("Max", end - start, 0.0), [-1], keepdims=0)


def proposals(
    g: Graph,
    features: Features,
    logits: Sequence[Value],
    deltas: Sequence[Value],
    size: Value,
    layer: Proposals,
) -> tuple[Value, Value]:
    """See `Proposals`; boxes `[B, R, 4]` and scores `[B, R]`, with R as small as the levels are."""
    before, after = layer.top_k_test
    all_boxes, all_scores = [], []
    for level, name in enumerate(sorted(features)):
        anchors = anchors_of_level(
            g, features[name], STRIDES[level], layer.anchor_sizes[level], layer.anchor_ratios
        )
        count = g.op("Min", g.size(logits[level], 1), [before])
        scores, chosen = g.op("TopK", logits[level], count, outputs=2)
        boxes = decode(
            g,
            take_rows(g, deltas[level], chosen),
            g.op("Gather", anchors, chosen),
            RPN_DELTA_WEIGHTS,
            size,
        )
        scores = g.where(areas(g, boxes) > 0.0, scores, NO_SCORE)
        kept = nms(g, boxes, g.op("Unsqueeze", scores, [1]), count, layer.nms_iou)
        at = g.op("Gather", kept, [0, 2], axis=1)
        all_scores.append(_only_at(g, scores, at))
        all_boxes.append(boxes)
    scores, boxes = g.concat(all_scores, axis=1), g.concat(all_boxes, axis=1)
    best = g.op("Min", g.size(scores, 1), [after])
    scores, chosen = g.op("TopK", scores, best, outputs=2)
    return take_rows(g, boxes, chosen), scores


def box_head(
    g: Graph, features: Features, rois: Value, scores: Value, head: BoxHead, threshold: float
) -> tuple[Value, Value]:
    """See `BoxHead`; runs on proposals alone, not on padding.

    Returns:
        float32 `[B, R, K]`, probabilities of the classes, NO_SCORE unless above `threshold`; and
        deltas `[B, R, K, 4]`.
    """
    classes, count = head.num_classes, g.size(scores, 1)
    valid = g.op("Reshape", scores > NO_SCORE, [-1])
    pooled, order = pool(g, features, rois, valid, 7, head.sampling_ratio)
    x = g.op("Flatten", pooled)
    kernel = array(head.fc1.kernel)  # rows are (y, x, channel), here (channel, y, x)
    kernel = kernel.reshape(7, 7, -1, head.units).transpose(2, 0, 1, 3).reshape(-1, head.units)
    x = g.op("Relu", g.op("Gemm", x, kernel, array(head.fc1.bias)))
    x = g.op("Relu", dense(g, x, head.fc2))
    probs = g.slice(g.op("Softmax", dense(g, x, head.classes)), 0, classes, axis=1)
    probs = g.where(probs > float(threshold), probs, NO_SCORE)
    total = g.size(valid, 0)
    probs = _scatter(g, g.full(NO_SCORE, total, classes), order, probs)
    deltas = _scatter(g, g.full(np.float32(0), total, 4 * classes), order, dense(g, x, head.deltas))
    return g.reshape(probs, -1, count, classes), g.reshape(deltas, -1, count, classes, 4)


def detections(
    g: Graph, rois: Value, probs: Value, deltas: Value, size: Value, layer: Detections, classes: int
) -> tuple[Value, Value, Value]:
    """See `Detections`.

    Args:
        g: `Graph`.
        rois: `[B, R, 4]`.
        probs: `[B, R, K]`, NO_SCORE where they are too low.
        deltas: `[B, R, K, 4]`.
        size: (H, W) of the images, float32 `[2]`.
        layer: `Detections`.
        classes: int K.

    Returns:
        boxes `[B, D, 4]`, scores `[B, D]` (0 is padding) and classes int64 `[B, D]` (-1).
    """
    count, most = g.size(rois, 1), layer.max_detections
    boxes = decode(g, deltas, g.op("Unsqueeze", rois, [2]), BOX_DELTA_WEIGHTS, size)
    scores = g.reshape(probs, -1, count * classes)
    if classes > CANDIDATES_PER_PROPOSAL:
        best, chosen = g.op("TopK", scores, count * CANDIDATES_PER_PROPOSAL, outputs=2)
        scores = g.op("ScatterElements", g.full_like(scores, NO_SCORE), chosen, best, axis=1)
    # Each class of each image is a problem of its own, since its boxes are.
    of_class = g.reshape(g.op("Transpose", boxes, perm=[0, 2, 1, 3]), -1, count, 4)
    scores_of_class = g.op("Transpose", g.reshape(scores, -1, count, classes), perm=[0, 2, 1])
    kept = nms(g, of_class, g.reshape(scores_of_class, -1, 1, count), count, layer.nms_iou)
    problem, roi = (g.op("Gather", kept, [column], axis=1) for column in (0, 2))
    at = g.concat([problem // classes, roi * classes + problem % classes], axis=1)
    scores = g.op("Pad", _only_at(g, scores, at), [0, most], NO_SCORE, [1])
    scores, chosen = g.op("TopK", scores, [most], outputs=2)
    chosen = g.op("Min", chosen, count * classes - 1)
    valid = scores > NO_SCORE
    boxes = take_rows(g, g.reshape(boxes, g.size(rois, 0), -1, 4), chosen)
    return (
        g.where(g.op("Unsqueeze", valid, [2]), boxes, 0.0),
        g.where(valid, scores, 0.0),
        g.where(valid, chosen % classes, -1),
    )


def mask_head(g: Graph, features: Features, boxes: Value, classes: Value, head: MaskHead) -> Value:
    """See `MaskHead`: probabilities `[B, D, 28, 28]`; those of padding, class -1, are 0."""
    classes = g.op("Reshape", classes, [-1])
    x, order = pool(g, features, boxes, classes >= 0, 14, head.sampling_ratio)
    for layer in head.convs:
        x = keras_conv(g, x, layer)
    kernel = array(head.deconv.kernel).transpose(3, 2, 0, 1)
    bias = array(head.deconv.bias)
    x = g.op("ConvTranspose", x, kernel, bias, kernel_shape=[2, 2], strides=[2, 2])
    cells = g.op("Reshape", g.op("Relu", x), [0, 0, MASK_SIZE**2])
    # Of the last layer each detection takes the filter of its class.
    chosen = g.op("Gather", classes, order)
    filters = array(head.predictor.kernel)[0, 0].T[:, None]  # K x 1 x channels
    bias = array(head.predictor.bias)[:, None, None]
    logits = g.op("MatMul", g.op("Gather", filters, chosen), cells) + g.op("Gather", bias, chosen)
    probs = g.op("Reshape", g.op("Sigmoid", logits), [0, MASK_SIZE, MASK_SIZE])
    empty = g.full(np.float32(0), g.size(classes, 0), MASK_SIZE, MASK_SIZE)
    probs = _scatter(g, empty, order, probs)
    return g.reshape(probs, g.size(boxes, 0), -1, MASK_SIZE, MASK_SIZE)


def pool(
    g: Graph, features: Features, boxes: Value, valid: Value, output_size: int, sampling_ratio: int
) -> tuple[Value, Value]:
    """`ops.roi_align`, of the valid boxes alone, in the order of their levels.

    Args:
        g: `Graph`.
        features: "P2".."P5".
        boxes: `[B, R, 4]`.
        valid: bool `[B R]`.
        output_size: int.
        sampling_ratio: int.

    Returns:
        `[m, C, output_size, output_size]`, and int64 `[m]`, which of the `B R` boxes each one is.
    """
    count = g.size(boxes, 1)
    boxes = g.op("Reshape", boxes, [-1, 4])
    scale = g.op("Sqrt", areas(g, boxes)) / 224.0
    level = g.op("Floor", g.op("Log", scale + 1e-8) / math.log(2.0) + 4.0)
    level = g.op("Min", g.op("Max", level, 2.0), 5.0)
    xyxy = g.op("Gather", boxes, [1, 0, 3, 2], axis=1)
    pooled, order = [], []
    for number, (name, stride) in enumerate(roi_align.STRIDES.items(), start=2):
        mine = g.op("NonZero", level.equals(float(number)) & valid)
        mine = g.op("Squeeze", mine, [0])
        pooled.append(
            g.op(
                "RoiAlign",
                features[name],
                g.op("Gather", xyxy, mine),
                mine // count,
                output_height=output_size,
                output_width=output_size,
                sampling_ratio=sampling_ratio,
                spatial_scale=1 / stride,
            )
        )
        order.append(mine)
    return g.concat(pooled), g.concat(order)


def nms(g: Graph, boxes: Value, scores: Value, count: Value, iou_threshold: float) -> Value:
    """Boxes `[P, n, 4]`, scores `[P, 1, n]` -> int64 `[m, 3]`, (problem, 0, box) of those kept."""
    return g.op("NonMaxSuppression", boxes, scores, count, float(iou_threshold), LOWEST)


def dense(g: Graph, x: Value, layer: keras.layers.Dense) -> Value:
    """A fully connected layer, without its activation."""
    return g.op("Gemm", x, array(layer.kernel), array(layer.bias))


def take_rows(g: Graph, x: Value, rows: Value) -> Value:
    """`ops.gather.take_rows`: of `[B, n, ...]` the rows int64 `[B, k]`."""
    return g.op("GatherND", x, g.op("Unsqueeze", rows, [2]), batch_dims=1)


def _halves(g: Graph, x: Value) -> list[Value]:
    return g.op("Split", x, outputs=2, axis=-1, num_outputs=2)


def _scatter(g: Graph, x: Value, rows: Value, values: Value) -> Value:
    return g.op("ScatterND", x, g.op("Unsqueeze", rows, [1]), values)


def _only_at(g: Graph, scores: Value, at: Value) -> Value:
    """The scores at int64 `[m, 2]`, NO_SCORE elsewhere."""
    rest = g.full_like(scores, NO_SCORE)
    return g.op("ScatterND", rest, at, g.op("GatherND", scores, at))
