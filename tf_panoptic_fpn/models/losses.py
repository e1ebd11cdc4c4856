"""The losses of Panoptic FPN (arXiv:1901.02446, section 3, equation 1).

Each loss is a sum over its examples and the number that it is divided by, so that several replicas
can add both up before they divide. Half-precision logits are made float32 first, and float64 ones
give losses in float64.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from keras import ops

from tf_panoptic_fpn.models.semantic_head import UPSAMPLING
from tf_panoptic_fpn.ops.boxes import BOX_DELTA_WEIGHTS, RPN_DELTA_WEIGHTS, encode_boxes
from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.precision import full_precision
from tf_panoptic_fpn.ops.resize import upsample_bilinear
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor, Tensors

STRIP = 8  # rows of logits that are upsampled at a time

Terms = dict[str, tuple[Tensor, Tensor]]  # a loss by name: its sum, and the count to divide by


@dataclasses.dataclass(frozen=True)
class ClassWeights:
    """The weight of each class in the cross-entropies of both branches.

    A loss is then the weighted mean, as of PyTorch's `CrossEntropyLoss`.
    """

    things: tuple[float, ...]  # [K + 1], the last for background
    semantic: tuple[float, ...]  # [S]


def rpn_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    matched_boxes: Tensor,
    anchors: Tensor,
    samples_per_image: int,
) -> Terms:
    """Binary cross-entropy of the sampled anchors, and L1 of the positive ones' deltas.

    Args:
        logits: float `[B, A]`, objectness.
        deltas: float `[B, A, 4]`.
        labels: int32 `[B, A]`; 1 positive, 0 negative, -1 not sampled.
        matched_boxes: float32 `[B, A, 4]`, ground truth of each positive anchor.
        anchors: float32 `[A, 4]`.
        samples_per_image: int; both sums are divided by samples_per_image x B.

    Returns:
        Dict "rpn_class", "rpn_box" of (sum, count), float32 scalars.

    Reference: Faster R-CNN, arXiv:1506.01497, equation 1.
    """
    logits, deltas = full_precision(logits), full_precision(deltas)
    dtype = logits.dtype
    entropy = ops.binary_crossentropy(ops.cast(labels == 1, dtype), logits, from_logits=True)
    error = _box_error(deltas, matched_boxes, anchors, RPN_DELTA_WEIGHTS)
    count = ops.cast(sides(labels)[0] * samples_per_image, dtype)
    return {
        "rpn_class": (ops.sum(ops.where(labels >= 0, entropy, 0.0)), count),
        "rpn_box": (ops.sum(ops.where((labels == 1)[:, :, None], error, 0.0)), count),
    }


def box_losses(
    class_logits: Tensor,
    deltas: Tensor,
    rois: Tensor,
    classes: Tensor,
    matched_boxes: Tensor,
    is_valid: Tensor,
    class_weights: Sequence[float] | None = None,
    delta_weights: Sequence[float] = BOX_DELTA_WEIGHTS,
) -> Terms:
    """Cross-entropy of all sampled rois, and L1 of the foreground ones' deltas of their class.

    Args:
        class_logits: float `[B, T, K + 1]`.
        deltas: float `[B, T, K, 4]`, or `[B, T, 1, 4]` for any class.
        rois: float32 `[B, T, 4]`.
        classes: int32 `[B, T]`; K is background.
        matched_boxes: float32 `[B, T, 4]`, ground truth of each foreground roi.
        is_valid: bool `[B, T]`; False is padding.
        class_weights: `[K + 1]`, weighs each roi in "class"; None for 1.
        delta_weights: 4 floats, see `encode_boxes`.

    Returns:
        Dict "class", "box" of (sum, count), float32 scalars; count is that of all rois, in both,
        or the sum of their weights.

    Reference: Fast R-CNN, arXiv:1504.08083, equation 1.
    """
    num_classes, num_deltas = class_logits.shape[2] - 1, deltas.shape[2]
    class_logits, deltas = full_precision(class_logits), full_precision(deltas)
    entropy = ops.sparse_categorical_crossentropy(classes, class_logits, from_logits=True)
    is_foreground = is_valid & (classes < num_classes)
    own = ops.minimum(classes, num_classes - 1) if num_deltas > 1 else ops.zeros_like(classes)
    error = _box_error(_of_classes(deltas, own), matched_boxes, rois, delta_weights)
    count = ops.sum(ops.cast(is_valid, entropy.dtype))
    return {
        "class": _weighted_sum(entropy, is_valid, classes, class_weights, count),
        "box": (ops.sum(ops.where(is_foreground[:, :, None], error, 0.0)), count),
    }


def _of_classes(deltas: Tensor, classes: Tensor) -> Tensor:
    """`[B, T, 4]` of `[B, T, K, 4]`."""
    # Not taken by index: TensorFlow makes 80 operations of the gradient of that.
    is_own = classes[:, :, None] == ops.arange(deltas.shape[2], dtype="int32")
    return ops.sum(ops.where(is_own[:, :, :, None], deltas, 0.0), axis=2)


def mask_loss(logits: Tensor, targets: Tensor, is_foreground: Tensor) -> Terms:
    """Binary cross-entropy of each foreground roi's mask, in the class of its ground truth.

    Args:
        logits: float `[B, F, 28, 28]`.
        targets: float32 `[B, F, 28, 28]`, 0 or 1.
        is_foreground: bool `[B, F]`.

    Returns:
        Dict "mask" of (sum, count), float32 scalars; count is that of the foreground cells.

    Reference: Mask R-CNN, arXiv:1703.06870, section 3.
    """
    logits = full_precision(logits)
    entropy = ops.binary_crossentropy(ops.cast(targets, logits.dtype), logits, from_logits=True)
    cells = targets.shape[2] * targets.shape[3]
    total = ops.sum(ops.where(is_foreground[:, :, None, None], entropy, 0.0))
    return {"mask": (total, ops.sum(ops.cast(is_foreground, logits.dtype)) * cells)}


def semantic_loss(
    logits: Tensor, semantic: Tensor, class_weights: Sequence[float] | None = None
) -> Terms:
    """Cross-entropy of each labelled pixel.

    Args:
        logits: float `[B, H', W', S]`, at the resolution of the labels, H' >= H, W' >= W (the
            rest is padding).
        semantic: int32 `[B, H, W]`; a label that is no class, such as -1, is ignored, and so is the
            255 of many label maps unless there are more than 255 classes.
        class_weights: `[S]`, weighs each pixel; None for 1.

    Returns:
        Dict "semantic" of (sum, count), float32 scalars; count is that of the labelled pixels, or
        the sum of their weights.

    Reference: arXiv:1901.02446, section 3.
    """
    height, width = sides(semantic)[1:3]
    logits = full_precision(logits[:, :height, :width])
    is_labelled = ops.logical_and(semantic >= 0, semantic < logits.shape[-1])
    labels = ops.where(is_labelled, semantic, 0)
    entropy = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    count = ops.sum(ops.cast(is_labelled, logits.dtype))
    return {"semantic": _weighted_sum(entropy, is_labelled, labels, class_weights, count)}


def upsampled_semantic_loss(
    logits: Tensor, semantic: Tensor, class_weights: Sequence[float] | None = None
) -> Terms:
    """`semantic_loss` of logits that are upsampled bilinearly first, by 4.

    On TensorFlow strip by strip, and with its gradient at once: so neither the logits nor their
    gradients are held at the size of the labels, which would be the most memory of a step.

    Args:
        logits: float `[B, h, w, S]`.
        semantic: int32 `[B, H, W]`, H <= 4 h, W <= 4 w.
        class_weights: see `semantic_loss`.
    """
    if not use_tensorflow_kernels():
        return semantic_loss(upsample_bilinear(logits, UPSAMPLING), semantic, class_weights)
    import tensorflow as tf

    logits = full_precision(logits)
    batch, height, width, num_classes = sides(logits)
    count = -(-height // STRIP)
    # A strip reads a row of its neighbours; beyond the border the first and the last row go on.
    missing = (count + 1) * STRIP - height - 2
    below = ops.zeros((batch, missing, width, num_classes), dtype=logits.dtype)
    rows = ops.concatenate([logits[:, :1], logits, logits[:, -1:], below], axis=1)
    blocks = ops.reshape(rows, (batch, count + 1, STRIP, width, num_classes))
    blocks = ops.moveaxis(blocks, 1, 0)
    strips = ops.concatenate([blocks[:-1], blocks[1:, :, :2]], axis=2)
    size = (count * STRIP * UPSAMPLING, width * UPSAMPLING)
    missing = [size[i] - sides(semantic)[i + 1] for i in range(2)]
    labels = ops.pad(semantic, ((0, 0), (0, missing[0]), (0, missing[1])), constant_values=-1)
    labels = ops.reshape(labels, (batch, count, STRIP * UPSAMPLING, size[1]))
    labels = ops.moveaxis(labels, 1, 0)

    def of_strip(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        strip, labels = pair
        with tf.GradientTape() as tape:
            tape.watch(strip)
            upsampled = upsample_bilinear(strip, UPSAMPLING)[:, UPSAMPLING:-UPSAMPLING]
            total, count = semantic_loss(upsampled, labels, class_weights)["semantic"]
        return total, count, tape.gradient(total, strip)

    def of_all(strips: Tensor) -> tuple[tuple[Tensor, Tensor], Callable]:
        specs = (tf.TensorSpec([], strips.dtype),) * 2
        specs += (tf.TensorSpec([None, STRIP + 2, None, strips.shape[-1]], strips.dtype),)
        pairs = (strips, labels)
        totals, counts, gradients = tf.map_fn(of_strip, pairs, fn_output_signature=specs)

        def gradient(of_total: Tensor, of_count: Tensor) -> Tensor:
            return gradients * of_total

        return (ops.sum(totals), ops.sum(counts)), gradient

    total, counted = tf.custom_gradient(of_all)(strips)
    return {"semantic": (total, counted)}


def weighted_losses(
    terms: Mapping[str, tuple[Tensor, Tensor]], lambda_instance: float, lambda_semantic: float
) -> Tensors:
    """Divides each (sum, count), 0 / 0 being 0, and weighs it.

    Args:
        terms: dict of (sum, count): "rpn_class", "rpn_box", "class", "box", "mask", "semantic"; of
            a cascade "class_stage0", "box_stage0", ...
        lambda_instance: weight of "class", "box" and "mask", of each stage.
        lambda_semantic: weight of "semantic".

    Returns:
        Dict of float32 scalars under the same names; the total loss is their sum.

    Reference: arXiv:1901.02446, equation 1.
    """
    weights = dict.fromkeys(("class", "box", "mask"), lambda_instance)
    weights["semantic"] = lambda_semantic
    return {
        name: weights.get(name.partition("_stage")[0], 1.0) * total / ops.maximum(count, 1.0)
        for name, (total, count) in terms.items()
    }


def _box_error(
    deltas: Tensor, boxes: Tensor, reference: Tensor, weights: Sequence[float]
) -> Tensor:
    """L1 between deltas and those that move `reference` onto `boxes`, in the dtype of `deltas`."""
    boxes, reference = ops.cast(boxes, deltas.dtype), ops.cast(reference, deltas.dtype)
    return ops.abs(deltas - encode_boxes(boxes, reference, weights))


def _weighted_sum(
    entropy: Tensor,
    is_counted: Tensor,
    classes: Tensor,
    class_weights: Sequence[float] | None,
    count: Tensor,
) -> tuple[Tensor, Tensor]:
    """The sum of what is counted, and `count` or, with weights, theirs."""
    if class_weights is None:
        return ops.sum(ops.where(is_counted, entropy, 0.0)), count
    table = ops.convert_to_tensor(class_weights, dtype=entropy.dtype)
    weights = ops.where(is_counted, ops.take(table, classes), 0.0)
    # Not a product alone: what is not counted may be NaN.
    return ops.sum(ops.where(is_counted, weights * entropy, 0.0)), ops.sum(weights)
