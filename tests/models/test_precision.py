"""The model under other dtype policies than float32."""

import keras
import numpy as np
import pytest
from small_model import make_batch, make_tiny_model

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.models import box_head, mask_head
from tf_panoptic_fpn.ops.roi_align import roi_align

# Each of some thirty layers rounds its output, to 8 bits in bfloat16 and 11 in float16. Measured:
# 1.6 % and .2 % of the logits' mean size.
LOGIT_ERROR = {"mixed_bfloat16": 0.04, "mixed_float16": 0.005, "float64": 1e-5}
LOSS_ERROR = {"mixed_bfloat16": 0.01, "mixed_float16": 0.001, "float64": 1e-5}
SEMANTIC = schema.SEMANTIC_LOGITS


def run(policy, weights=None):
    """Calls and trains the tiny model, step by step, under a global policy."""
    keras.config.set_dtype_policy(policy)
    if policy == "float64":
        keras.config.set_floatx("float64")
    try:
        model = make_tiny_model()
        if weights is not None:
            model.set_weights(weights)
        before = model.get_weights()
        batch = make_batch(2, (64, 96))
        outputs = {name: value.numpy() for name, value in model(batch[schema.IMAGES]).items()}
        dense = model(batch, training=True)
        optimizer = keras.optimizers.SGD(1e-3)
        if policy == "mixed_float16":  # the default scale overflows and skips the first steps
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64)
        model.compile(optimizer, run_eagerly=True)
        history = model.fit(batch, batch_size=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_floatx("float32")
    return {
        "model": model,
        "weights": before,
        "outputs": outputs,
        "dense": dense,
        "losses": {name: values[0] for name, values in history.items()},
    }


@pytest.fixture(scope="module")
def full():
    return run("float32")


@pytest.fixture(scope="module", params=list(LOGIT_ERROR))
def other(request, full):
    return {"policy": request.param, **run(request.param, full["weights"])}


def test_everything_but_features_is_in_full_precision(other):
    dtype = "float64" if other["policy"] == "float64" else "float32"
    outputs, dense = other["outputs"], other["dense"]
    for name in (schema.BOXES, schema.SCORES, schema.MASK_PROBS, SEMANTIC):
        assert outputs[name].dtype == dtype, name
        assert other["model"].output[name].dtype == dtype, name
    for name in ("rpn_logits", "rpn_deltas"):
        assert {value.dtype.name for value in dense[name]} == {dtype}, name
    assert {v.dtype for v in other["model"].trainable_variables} == {dtype}
    features = {value.dtype.name for value in dense["features"].values()}
    assert features == {other["policy"].removeprefix("mixed_")}


def test_close_to_float32(full, other):
    expected, received = full["outputs"], other["outputs"]
    error = np.abs(received[SEMANTIC] - expected[SEMANTIC]).mean()
    assert error < LOGIT_ERROR[other["policy"]] * np.abs(expected[SEMANTIC]).mean()
    for name in (schema.SCORES, schema.MASK_PROBS):
        atol = LOGIT_ERROR[other["policy"]]
        np.testing.assert_allclose(received[name], expected[name], rtol=0, atol=atol, err_msg=name)
    # Which rois are drawn, and so the losses of boxes and masks, are decisions of the network.
    for name in ("class", "semantic"):
        rtol = LOSS_ERROR[other["policy"]]
        np.testing.assert_allclose(other["losses"][name], full["losses"][name], rtol, err_msg=name)


def test_trains(other):
    assert np.isfinite(list(other["losses"].values())).all()
    pairs = zip(other["weights"], other["model"].get_weights(), strict=True)
    assert sum((a != b).any() for a, b in pairs) > 0.8 * len(other["weights"])
    other["model"].compile("sgd")
    scaled = isinstance(other["model"].optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (other["policy"] == "mixed_float16")


def test_the_policy_survives_the_config(other):
    """In a process whose own policy is float32."""
    model = other["model"]
    clone = type(model).from_config(model.get_config())
    assert clone.dtype_policy.name == other["policy"]
    policies = [
        [(layer.name, layer.dtype_policy.name) for layer in m._flatten_layers() if layer.variables]
        for m in (model, clone)
    ]
    assert policies[0] == policies[1]
    assert {name for _, name in policies[0]} >= {other["policy"]}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("module", [box_head, mask_head])
def test_rois_reach_the_heads_in_full_precision(module, policy, monkeypatch):
    received = []

    def spy(features, rois, *arguments):
        received.append((features["P2"].dtype, rois))
        return roi_align(features, rois, *arguments)

    monkeypatch.setattr(module, "roi_align", spy)
    features = {f"P{i + 2}": np.zeros((1, 16 >> i, 16 >> i, 4), "float32") for i in range(4)}
    features = {
        name: keras.ops.cast(x, policy.removeprefix("mixed_")) for name, x in features.items()
    }
    rois = np.array([[[2049.3, 3001.7, 2101.1, 3055.9]]], "float32")
    if module is box_head:
        logits, _ = box_head.BoxHead(2, 8, dtype=policy)(features, rois)
    else:
        classes, counts = np.zeros((1, 1), "int32"), np.ones(1, "int32")
        logits = mask_head.MaskHead(2, 8, dtype=policy)(features, rois, classes, counts)
    [(dtype, boxes)] = received
    assert dtype == policy.removeprefix("mixed_")
    assert logits.dtype == "float32"
    np.testing.assert_array_equal(boxes, rois)
