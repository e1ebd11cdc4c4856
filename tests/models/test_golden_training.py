"""Losses, gradients and the step equal detectron2's, given its sampled anchors and rois.

In float64, where nothing but the arithmetic decides; see docs/decisions/0005.
"""

import numpy as np
import pytest
import tensorflow as tf
from float64 import float64
from golden_training import losses_and_gradients
from keras import ops
from small_model import DETECTRON2_LOSSES, XY

from tf_panoptic_fpn.data.instance_masks import masks_from_map
from tf_panoptic_fpn.ops.masks import crop_masks
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.weights.detectron2_layout import weight_plan

TOLERANCE = 1e-9  # measured: losses 7e-15, gradients 1.1e-13


@pytest.fixture(scope="module", params=["train_a", "train_b"])
def trained(request, goldens_dir, small_model_64):
    inputs = dict(np.load(goldens_dir / f"{request.param}.npz"))
    golden = dict(np.load(goldens_dir / f"{request.param}_f64.npz"))
    return golden, *losses_and_gradients(small_model_64, inputs)


def check_losses(golden, weighted, total, tolerance):
    for name, key in DETECTRON2_LOSSES.items():
        received = total if name == "total" else weighted[name]
        np.testing.assert_allclose(received, golden[key], rtol=tolerance, err_msg=name)


def check_gradients(model, golden, gradients, tolerance):
    """Each gradient whole: the norm of the difference over the norm."""
    checked = set()
    for variable, (name, *_), convert in weight_plan(model):
        if variable.path in gradients:
            expected = convert(golden[f"grad/{name}"])
            error = np.linalg.norm(gradients[variable.path] - expected)
            assert error <= tolerance * np.linalg.norm(expected), name
            checked.add(name)
    assert checked == set(golden["grad_names"])
    assert len(checked) == 107


def test_losses(trained):
    golden, weighted, total, _ = trained
    check_losses(golden, weighted, total, TOLERANCE)


def test_gradients(trained, small_model_64):
    golden, _, _, gradients = trained
    check_gradients(small_model_64, golden, gradients, TOLERANCE)


def test_the_same_weights_are_trained(trained, small_model_64):
    golden, _, _, gradients = trained
    trainable = {
        name for v, names, _ in weight_plan(small_model_64) for name in names if v.path in gradients
    }
    assert trainable == set(golden["grad_names"])


def test_weights_after_a_step(trained, small_model_64):
    golden, _, _, gradients = trained
    expected = {k.removeprefix("sgd_after/"): v for k, v in golden.items() if "sgd_after/" in k}
    plan = [step for step in weight_plan(small_model_64) if step[1][0] in expected]
    assert len(plan) == len(expected) == 6
    variables = [variable for variable, _, _ in plan]
    before = [ops.convert_to_numpy(variable) for variable in variables]
    with float64():
        optimizer = SGD(float(golden["sgd_lr"]), momentum=0.9, weight_decay=1e-4)
        optimizer.apply([gradients[variable.path] for variable in variables], variables)
    after = [ops.convert_to_numpy(variable) for variable in variables]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    for (variable, names, convert), value in zip(plan, after, strict=True):
        wanted = convert(expected[names[0]])
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-12, err_msg=variable.path)


def test_float32(goldens_dir, small_model):
    """What training runs: other kernels, and rounding.

    A ReLU, or the sign in an L1 loss, whose input is within rounding of 0 turns a cell's gradient
    on or off, and which ones do differs by processor. detectron2's own float32 gradients are up to
    4.4e-2 from its float64, its losses 4e-6; twice that is allowed.
    """
    inputs = dict(np.load(goldens_dir / "train_a.npz"))
    golden = dict(np.load(goldens_dir / "train_a_f64.npz"))
    weighted, total, gradients = losses_and_gradients(small_model, inputs)
    assert total.dtype == "float32"
    check_losses(golden, weighted, total, 8e-6)
    check_gradients(small_model, golden, gradients, 8.8e-2)


def test_mask_targets_of_our_own(goldens_dir):
    """Read from 112x112 bitmaps in the frame of their box; detectron2 reads whole bitmaps."""
    golden = dict(np.load(goldens_dir / "train_a.npz"))
    targets, whole, classes = [], [], []
    for i in range(2):
        rois, boxes = golden[f"mask_fg_boxes_{i}"], golden[f"gt_boxes_{i}"]
        matched = (golden[f"roi_gt_boxes_{i}"][: len(rois), None] == boxes).all(-1).argmax(1)
        classes.append(golden[f"mask_fg_classes_{i}"])
        bitmaps = [
            masks_from_map(mask.astype(np.int32), tf.constant([1]), box[None, XY])[0]
            for mask, box in zip(golden[f"gt_masks_{i}"], boxes, strict=True)
        ]
        boxes, matched = boxes[None, :, XY].astype("float64"), matched[None].astype(np.int32)
        rois = ops.convert_to_tensor(rois[None, :, XY], "float64")
        targets.append(crop_masks(np.stack(bitmaps)[None], boxes, matched, rois, 28)[0])
        num, height, width = golden[f"gt_masks_{i}"].shape
        side = max(height, width)
        bitmaps = np.zeros((num, side, side), np.uint8)
        bitmaps[:, :height, :width] = golden[f"gt_masks_{i}"]
        image = np.tile([0.0, 0, side, side], (1, num, 1))
        whole.append(crop_masks(bitmaps[None], image, matched, rois, 28)[0])
    ours, stored = np.concatenate(targets), golden["mask_targets"]
    assert stored.size == 66640
    # The rule is detectron2's: of whole bitmaps, two cells are covered to exactly half.
    assert (np.concatenate(whole) != stored).sum() <= 2
    # 245; some cells are covered to exactly half, and rounding decides.
    assert 235 <= (ours != stored).sum() <= 255

    classes = np.concatenate(classes)
    logits = golden["mask_logits"][np.arange(len(classes)), classes].astype("float64")

    def loss(targets):
        return (np.logaddexp(0, logits) - targets * logits).mean()

    np.testing.assert_allclose(loss(stored), golden["loss_mask"], rtol=1e-5)
    assert loss(ours) / loss(stored) - 1 == pytest.approx(3.2e-4, abs=0.5e-4)
