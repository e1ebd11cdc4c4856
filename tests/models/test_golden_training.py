"""Losses, gradients and the step equal detectron2's, given its sampled anchors and rois."""

import numpy as np
import pytest
import tensorflow as tf
from small_model import XY, make_small_model, stack_images

from tf_panoptic_fpn import losses
from tf_panoptic_fpn.ops.resize import upsample_bilinear
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.weights.detectron2 import load_detectron2
from tf_panoptic_fpn.weights.plan import weight_plan

LOSSES = {
    "rpn_class": "loss_rpn_cls",
    "rpn_box": "loss_rpn_loc",
    "class": "loss_cls",
    "box": "loss_box_reg",
    "mask": "loss_mask",
    "semantic": "loss_sem_seg",
}
# A ReLU, or the sign in an L1 loss, whose input is within rounding of 0 turns a cell's gradient on
# or off: changing the images by one part in 2**23 moves gradient norms by up to 1e-2. Ours differ
# from the reference's by up to 3e-4 in norm, 8 of 214 by more than 1e-4; and turn by up to 9e-4.
RELU_NOISE = 5e-4


def stacked(golden, key, shape=None):
    rows = [golden.get(f"{key}_{i}", None) for i in range(2)]
    return np.stack([np.zeros(shape, np.float32) if row is None else row for row in rows])


def load_targets(golden):
    """The sampled targets of a golden in our layout; foreground rois come first there too."""
    classes = stacked(golden, "roi_classes").astype(np.int32)
    masks, start = np.zeros((2, 128, 28, 28), np.float32), 0
    for i in range(2):
        count = len(golden[f"mask_fg_boxes_{i}"])
        np.testing.assert_array_equal(
            golden[f"mask_fg_boxes_{i}"], golden[f"roi_boxes_{i}"][:count]
        )
        masks[i, :count] = golden["mask_targets"][start : start + count]
        start += count
    return {
        "rois": stacked(golden, "roi_boxes")[..., XY],
        "classes": classes,
        "matched_boxes": stacked(golden, "roi_gt_boxes", (512, 4))[..., XY],
        "is_valid": np.ones((2, 512), bool),
        "masks": masks,
        "is_foreground": classes[:, :128] < 5,
    }


@pytest.fixture(scope="module", params=["train_a", "train_b"])
def trained(request, goldens_dir, small_model):
    golden = dict(np.load(goldens_dir / f"{request.param}.npz"))
    images, sizes = stack_images(golden)
    semantic = np.full((2, 128, 160), 255, np.int32)
    for i, (height, width) in enumerate(sizes):
        semantic[i, :height, :width] = golden[f"sem_seg_{i}"]
    labels = tf.constant(stacked(golden, "rpn_labels").astype(np.int32))
    matched_boxes = tf.constant(stacked(golden, "rpn_matched_gt_boxes")[..., XY])
    targets = tf.nest.map_structure(tf.constant, load_targets(golden))

    @tf.function
    def losses_and_gradients():
        with tf.GradientTape() as tape:
            dense = small_model.dense_outputs(images, sizes)
            logits = upsample_bilinear(dense["semantic_logits"], 4)
            weighted = small_model.weighted_losses(
                {
                    **small_model.rpn_loss_terms(dense, labels, matched_boxes),
                    **small_model.roi_loss_terms(dense["features"], targets),
                    **losses.semantic_loss(logits, tf.constant(semantic)),
                }
            )
            total = sum(weighted.values())
        variables = [v.value for v in small_model.trainable_variables]
        return weighted, total, tape.gradient(total, variables)

    weighted, total, gradients = losses_and_gradients()
    paths = [v.path for v in small_model.trainable_variables]
    return golden, weighted, total, dict(zip(paths, gradients, strict=True))


def test_losses(trained):
    golden, weighted, total, _ = trained
    for name, key in LOSSES.items():
        np.testing.assert_allclose(weighted[name], golden[key], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(total, golden["loss_total"], rtol=1e-5)


def test_gradients(trained, small_model):
    golden, _, _, gradients = trained
    norms = dict(zip(golden["grad_names"], golden["grad_norms"], strict=True))
    checked = 0
    for variable, names, _ in weight_plan(small_model):
        if variable.path in gradients:
            norm = np.linalg.norm(gradients[variable.path])
            np.testing.assert_allclose(norm, norms[names[0]], rtol=RELU_NOISE, err_msg=names[0])
            checked += 1
    assert checked == len(norms)


def test_stored_gradients(trained, small_model):
    golden, _, _, gradients = trained
    stored = {key.removeprefix("grad/") for key in golden if key.startswith("grad/")}
    for variable, names, convert in weight_plan(small_model):
        if variable.path in gradients and names[0] in stored:
            expected = convert(golden[f"grad/{names[0]}"].copy())
            error = np.linalg.norm(gradients[variable.path] - expected)
            assert error <= 4 * RELU_NOISE * np.linalg.norm(expected), names[0]


def test_the_same_weights_are_trained(trained, small_model):
    golden, _, _, gradients = trained
    trainable = {
        name for v, names, _ in weight_plan(small_model) for name in names if v.path in gradients
    }
    assert trainable == set(golden["grad_names"])


@pytest.mark.parametrize(("source", "tolerance"), [("stored", 1e-6), ("ours", 2e-6)])
def test_weights_after_a_step(trained, goldens_dir, source, tolerance):
    """One step of SGD with the stored gradients, and with ours, whose noise is twice as large."""
    golden, _, _, gradients = trained
    expected = {k.removeprefix("sgd_after/"): v for k, v in golden.items() if "sgd_after/" in k}
    if not expected:
        pytest.skip("stored for one case only")
    model = make_small_model()
    load_detectron2(model, goldens_dir / "weights_small.npz")
    plan = [step for step in weight_plan(model) if step[1][0] in expected]
    assert len(plan) == len(expected) == 6
    optimizer = SGD(float(golden["sgd_lr"]), momentum=0.9, weight_decay=1e-4)
    variables = [variable for variable, _, _ in plan]
    if source == "stored":
        steps = [convert(golden[f"grad/{names[0]}"]) for _, names, convert in plan]
    else:
        steps = [gradients[variable.path] for variable in variables]
    optimizer.apply(steps, variables)
    for variable, names, convert in plan:
        value = convert(expected[names[0]])
        np.testing.assert_allclose(variable, value, rtol=0, atol=tolerance, err_msg=names[0])
