"""The golden training cases on our model: its losses and gradients for the stored samples."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from small_model import XY, stack_images, stack_semantic

from tf_panoptic_fpn.models import losses
from tf_panoptic_fpn.ops.resize import upsample_bilinear


def losses_and_gradients(model, golden):
    """Returns the weighted losses, their sum, and path -> gradient, for a golden's sampled targets.

    Eager: a trace would take ten times as long as the run.

    Args:
        model: a `PanopticFPN` with the goldens' weights.
        golden: `train_a.npz` or `train_b.npz` as a dict, with the names of the plain model's.
    """
    images, sizes = stack_images(golden)
    semantic = stack_semantic(golden, sizes)
    labels = ops.convert_to_tensor(_stacked(golden, "rpn_labels").astype(np.int32))
    # As the model's own targets: boxes have the dtype of its anchors and proposals.
    targets = keras.tree.map_structure(
        lambda x: ops.convert_to_tensor(x, model.compute_dtype if x.dtype == "float32" else None),
        {
            **_load_targets(golden),
            "anchors": _stacked(golden, "rpn_matched_gt_boxes")[..., XY],
            "image_sizes": sizes,
        },
    )
    with tf.GradientTape() as tape:
        dense = model.dense_outputs(images, sizes)
        logits = upsample_bilinear(dense["semantic_logits"], 4)
        weighted = model.weighted_losses(
            {
                **model.rpn_loss_terms(dense, labels, targets["anchors"]),
                **model.roi_loss_terms(dense["features"], targets),
                **losses.semantic_loss(logits, ops.convert_to_tensor(semantic)),
            }
        )
        total = sum(weighted.values())
    variables = model.trainable_variables
    gradients = tape.gradient(total, [v.value for v in variables])
    return weighted, total, dict(zip([v.path for v in variables], gradients, strict=True))


def _stacked(golden, key, shape=None):
    rows = [golden.get(f"{key}_{i}", None) for i in range(2)]
    return np.stack([np.zeros(shape, np.float32) if row is None else row for row in rows])


def _load_targets(golden):
    """The sampled targets of a golden in our layout; foreground rois come first there too."""
    classes = _stacked(golden, "roi_classes").astype(np.int32)
    masks, start = np.zeros((2, 128, 28, 28), np.float32), 0
    for i in range(2):
        count = len(golden[f"mask_fg_boxes_{i}"])
        np.testing.assert_array_equal(
            golden[f"mask_fg_boxes_{i}"], golden[f"roi_boxes_{i}"][:count]
        )
        masks[i, :count] = golden["mask_targets"][start : start + count]
        start += count
    return {
        "rois": _stacked(golden, "roi_boxes")[..., XY],
        "classes": classes,
        "matched_boxes": _stacked(golden, "roi_gt_boxes", (512, 4))[..., XY],
        "is_valid": np.ones((2, 512), bool),
        "masks": masks,
        "is_foreground": classes[:, :128] < 5,
        **_load_ground_truth(golden),
    }


def _load_ground_truth(golden):
    """What later stages of a cascade match their rois to."""
    boxes, classes = np.zeros((2, 8, 4), np.float32), np.full((2, 8), -1, np.int32)
    for i in range(2):
        count = len(golden[f"gt_boxes_{i}"])
        boxes[i, :count] = golden[f"gt_boxes_{i}"][:, XY]
        classes[i, :count] = golden[f"gt_classes_{i}"]
    return {"gt_boxes": boxes, "gt_classes": classes, "gt_is_valid": classes >= 0}
