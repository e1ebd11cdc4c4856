"""Losses, gradients and the step equal detectron2's, given its sampled anchors and rois."""

import json

import numpy as np
import pytest
import tensorflow as tf
from golden_training import losses_and_gradients
from small_model import make_small_model

from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.weights.detectron2 import load_detectron2
from tf_panoptic_fpn.weights.detectron2_layout import weight_plan

LOSSES = {
    "rpn_class": "loss_rpn_cls",
    "rpn_box": "loss_rpn_loc",
    "class": "loss_cls",
    "box": "loss_box_reg",
    "mask": "loss_mask",
    "semantic": "loss_sem_seg",
}
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["train_a", "train_b"])
def trained(request, goldens_dir, small_model):
    golden = dict(np.load(goldens_dir / f"{request.param}.npz"))
    noise = json.loads((goldens_dir / "gradient_noise.json").read_text())[request.param]
    # With Grappler, as in training: which cells' ReLUs turn depends on the order of each sum.
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    received = losses_and_gradients(small_model, golden)
    tf.config.optimizer.set_experimental_options(options)
    return golden, noise, *received


def tolerance(noise, kind):
    """1e-4, and where the stored gradient is farther than that from float64, that distance more.

    A ReLU, or the sign in an L1 loss, whose input is within rounding of 0 turns a cell's gradient
    on or off; docs/decisions/0005.
    """
    return TOLERANCE + (noise[kind] if noise[kind] > TOLERANCE else 0)


def test_losses(trained):
    golden, _, weighted, total, _ = trained
    for name, key in LOSSES.items():
        np.testing.assert_allclose(weighted[name], golden[key], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(total, golden["loss_total"], rtol=1e-5)


def test_gradient_norms(trained, small_model):
    golden, noise, _, _, gradients = trained
    norms = dict(zip(golden["grad_names"], golden["grad_norms"], strict=True))
    checked = 0
    for variable, (name, *_), _ in weight_plan(small_model):
        if variable.path in gradients:
            norm, rtol = np.linalg.norm(gradients[variable.path]), tolerance(noise[name], "norm")
            np.testing.assert_allclose(norm, norms[name], rtol=rtol, err_msg=name)
            checked += 1
    assert checked == len(norms) == 107


def test_stored_gradients(trained, small_model):
    golden, noise, _, _, gradients = trained
    stored = {key.removeprefix("grad/") for key in golden if key.startswith("grad/")}
    for variable, (name, *_), convert in weight_plan(small_model):
        if variable.path in gradients and name in stored:
            expected = convert(golden[f"grad/{name}"].copy())
            error = np.linalg.norm(gradients[variable.path] - expected)
            assert error <= tolerance(noise[name], "tensor") * np.linalg.norm(expected), name


def test_the_same_weights_are_trained(trained, small_model):
    golden, _, _, _, gradients = trained
    trainable = {
        name for v, names, _ in weight_plan(small_model) for name in names if v.path in gradients
    }
    assert trainable == set(golden["grad_names"])


@pytest.mark.parametrize(("source", "tolerance"), [("stored", 1e-6), ("ours", 2e-6)])
def test_weights_after_a_step(trained, goldens_dir, source, tolerance):
    """One step of SGD with the stored gradients, and with ours, whose noise is twice as large."""
    golden, _, _, _, gradients = trained
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
