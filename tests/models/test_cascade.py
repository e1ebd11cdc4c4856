"""The parts of a cascade against detectron2's, and what the package does with a whole one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64 import float64
from keras import ops
from small_model import XY, make_batch, make_tiny_cascade, short_resnets

from tf_panoptic_fpn import load_model, schema
from tf_panoptic_fpn.backbones.deformable_conv import DeformableConv2D
from tf_panoptic_fpn.backbones.resnet import BottleneckBlock, ResNet
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.saved_model import SavedModelPredictor
from tf_panoptic_fpn.models import losses
from tf_panoptic_fpn.models.assembly import stage_delta_weights
from tf_panoptic_fpn.models.box_head import BoxHead
from tf_panoptic_fpn.models.cascade import CascadeBoxHead, cascade_losses, rematched
from tf_panoptic_fpn.models.mask_head import MaskHead
from tf_panoptic_fpn.ops.boxes import clip_boxes, decode_boxes, encode_boxes
from tf_panoptic_fpn.weights import detectron2_layout as layout

TOLERANCE = 1e-10
STAGES = range(3)
WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))


@pytest.fixture(scope="module")
def units(goldens_dir):
    """Inputs in float32, and over them what they give in float64."""
    folder = goldens_dir / "detectron2_cascade"
    return {**np.load(folder / "units.npz"), **np.load(folder / "units_f64.npz")}


def nhwc(x):
    return np.transpose(x, (0, 2, 3, 1)).astype("float64")


# === Layers with a norm ===


def check_layer(units, unit, call, plan, x):
    """Output and every gradient of a layer, whose weights are set first."""
    steps = [(variable, name, convert) for variable, (name,), convert in plan]
    for variable, name, convert in steps:
        variable.assign(convert(units[f"{unit}_weight/{name}"].astype("float64")))
    variables = [variable.value for variable, _, _ in steps]
    upstream = units[f"{unit}_grad_output"].astype("float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
        total = tf.reduce_sum(y * upstream)
    dx, *gradients = tape.gradient(total, [x, *variables])
    check(y, units[f"{unit}_output"])
    check(np.transpose(dx, (0, 3, 1, 2)), units[f"{unit}_grad_input"])
    assert len(steps) == sum(name.startswith(f"{unit}_weight/") for name in units)
    for (_, name, convert), gradient in zip(steps, gradients, strict=True):
        key, gradient = f"{unit}_grad/{name}", np.asarray(gradient)
        if key in units:
            check(gradient, convert(units[key]))
        else:  # every seventh number of it
            shape = units[f"{unit}_weight/{name}"].shape
            places = convert(np.arange(gradient.size).reshape(shape))
            check(gradient.ravel()[places.argsort(axis=None)][::7], units[f"{key}_every7"])


def check(received, expected):
    np.testing.assert_allclose(received, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def pooled_as_given(monkeypatch, module, x):
    """Lets a head read `[R, h, w, C]` in place of what RoIAlign would give it."""
    monkeypatch.setattr(f"tf_panoptic_fpn.models.{module}.roi_align", lambda *_: x[None])


def test_deformable_block(units):
    """Stride 2 in the 3x3 of a bottleneck of 8 groups."""
    with float64():
        deformable = {"deform_groups": 1, "modulated": False}
        block = BottleneckBlock(
            32,
            16,
            "group_norm",
            2,
            project=True,
            stride_in_1x1=False,
            norm_groups=8,
            deformable=deformable,
        )
        block.build((None, 12, 10, 16))
    plan = []
    for name in ("conv1", "conv2", "conv3", "shortcut"):
        plan += layout._conv_norm(getattr(block, name), name)
    plan += layout._layer(block.conv2.conv.offset, "conv2_offset", layout._kernel)
    plan = [(variable, names[:1], convert) for variable, names, convert in plan]
    check_layer(
        units,
        "block",
        lambda x: ops.transpose(block(x), (0, 3, 1, 2)),
        plan,
        tf.constant(nhwc(units["block_input"])),
    )


def test_box_head_with_group_norm(units, monkeypatch):
    """Four convolutions and a fully connected layer, 32 groups."""
    with float64():
        head = BoxHead(3, 48, design="four_conv_one_fc", channels=64, norm="group_norm")
        head.build({"P2": (None, None, None, 16)})
    plan = [
        (variable, [names[0].removeprefix("roi_heads.box_head.")], convert)
        for variable, names, convert in layout._box_head_plan(head, "box_head", "box_predictor")
        if "predictor" not in names[0]
    ]

    def call(x):
        pooled_as_given(monkeypatch, "box_head", x)
        monkeypatch.setattr(head, "classes", lambda x: x)
        monkeypatch.setattr(head, "num_classes", 47)
        monkeypatch.setattr(head, "deltas", lambda x: ops.zeros((6, 12)))
        return head.call({}, ops.zeros((1, 6, 4)))[0][0]

    check_layer(units, "gnhead", call, plan, tf.constant(nhwc(units["gnhead_input"])))


def test_mask_head_with_group_norm(units):
    """Eight convolutions, 32 groups."""
    with float64():
        head = MaskHead(3, 64, convolutions=8, norm="group_norm")
        head.build({"P2": (None, None, None, 16)})
    plan = []
    for i, conv in enumerate(head.convs, start=1):
        plan += layout._conv(conv, f"mask_fcn{i}")
    plan += layout._layer(head.deconv, "deconv", layout._kernel)
    plan += layout._layer(head.predictor, "predictor", layout._kernel)
    plan = [(variable, names[:1], convert) for variable, names, convert in plan]

    def call(x):
        for conv in head.convs:
            x = conv(x)
        return ops.transpose(head.predictor(head.deconv(x)), (0, 3, 1, 2))

    check_layer(units, "gnmask", call, plan, tf.constant(nhwc(units["gnmask_input"])))


# === Stages ===


@pytest.mark.parametrize("stage", STAGES)
def test_deltas_of_a_stage(units, stage):
    weights = stage_delta_weights({"cascade_ious": (0.5, 0.6, 0.7), "cascade_delta_weights": ()})
    assert weights == WEIGHTS
    np.testing.assert_array_equal(weights[stage], units[f"transform_stage{stage}_weights"])
    source, target, deltas = (
        units[f"transform_{name}"][:, XY].astype("float64") for name in ("src", "tgt", "in")
    )
    received = encode_boxes(target, source, weights[stage])
    expected = units[f"transform_stage{stage}_deltas"][:, XY]
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-4)
    received = decode_boxes(deltas, ops.convert_to_tensor(source), weights[stage])
    expected = units[f"transform_stage{stage}_apply"][:, XY]
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("stage", "iou"), [(1, 0.6), (2, 0.7)])
def test_boxes_are_matched_anew(units, stage, iou):
    """60 boxes of which 4 are empty once clipped, and an image of 12 boxes without instances."""
    boxes, is_valid = np.zeros((2, 60, 4), np.float32), np.zeros((2, 60), bool)
    for i in range(2):
        given = units[f"rematch_in_boxes_{i}"][:, XY]
        boxes[i, : len(given)], is_valid[i, : len(given)] = given, True
    clipped = clip_boxes(ops.convert_to_tensor(boxes), units["rematch_image_hw"])
    np.testing.assert_array_equal(clipped[0], units["rematch_eval_boxes_0"][:, XY])
    gt_boxes, gt_classes = np.zeros((2, 6, 4), np.float32), np.full((2, 6), -1, np.int32)
    gt_boxes[0] = units["rematch_gt_boxes_0"][:, XY]
    gt_classes[0] = units["rematch_gt_classes_0"]
    targets = {
        "is_valid": is_valid,
        "gt_boxes": gt_boxes,
        "gt_classes": gt_classes,
        "gt_is_valid": gt_classes >= 0,
    }
    targets = rematched(targets, clipped, iou, num_classes=5)
    logits, deltas = np.zeros((2, 60, 6)), np.zeros((2, 60, 1, 4))
    start = 0
    for i in range(2):
        kept = np.asarray(targets["is_valid"][i])
        expected = units[f"rematch_stage{stage}_boxes_{i}"]
        rows = slice(start, start + len(expected))
        start = rows.stop
        for name, key in (("rois", "boxes"), ("matched_boxes", "gt_boxes")):
            expected = units[f"rematch_stage{stage}_{key}_{i}"][:, XY]
            np.testing.assert_array_equal(np.asarray(targets[name][i])[kept], expected)
        classes = np.asarray(targets["classes"][i])
        np.testing.assert_array_equal(classes[kept], units[f"rematch_stage{stage}_classes_{i}"])
        assert (classes[~kept] == 5).all()
        logits[i, kept] = units[f"rematch_stage{stage}_cls_logits"][rows]
        deltas[i, kept, 0] = units[f"rematch_stage{stage}_box_deltas"][rows][:, XY]
    names = ("rois", "classes", "matched_boxes", "is_valid")
    terms = losses.box_losses(
        ops.convert_to_tensor(logits),
        ops.convert_to_tensor(deltas),
        *(targets[name] for name in names),
        delta_weights=WEIGHTS[stage],
    )
    for name, key in (("class", "cls"), ("box", "box_reg")):
        total, count = terms[name]
        assert count == 56 + 12
        expected = units[f"rematch_stage{stage}_loss_{key}"]
        np.testing.assert_allclose(total / count, expected, rtol=1e-6)


def test_a_stage_hands_on_a_share_of_its_gradient(monkeypatch):
    """The features get a third of each of three, the head's own weights all of it."""
    x = tf.random.stateless_normal((2, 7, 7, 4), (1, 2))
    gradients = {}
    for stages in (1, 3):
        keras.utils.set_random_seed(3)
        ious, weights = (0.5,) * stages, WEIGHTS[:stages]
        head = CascadeBoxHead(ious, weights, {"num_classes": 2, "units": 8}).stages
        pooled_as_given(monkeypatch, "box_head", x)
        head[0].build({"P2": (None, None, None, 4)})
        with tf.GradientTape() as tape:
            tape.watch(x)
            pooled_as_given(monkeypatch, "box_head", x)
            logits, _ = head[0].call({}, ops.zeros((1, 2, 4)))
            total = tf.reduce_sum(logits**2)
        kernel = head[0].fc1.kernel.value
        gradients[stages] = [total, *tape.gradient(total, [x, kernel])]
    for i, factor in enumerate((1, 3, 1)):
        np.testing.assert_allclose(gradients[3][i] * factor, gradients[1][i], rtol=1e-5)


def test_wrong_choices():
    for options, message in (
        ({"class_agnostic_boxes": False}, "takes `class_agnostic_boxes`"),
        ({"cascade_delta_weights": WEIGHTS[:2]}, "as many rows as `cascade_ious`.* 2 for 3"),
        ({"fpn_norm": "batch"}, "`fpn_norm` must be"),
        ({"box_head": "one_fc"}, "`box_head` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            make_tiny_cascade(**options)
    with pytest.raises(ValueError, match="`deformable_stages` must be of 2 to 5"):
        ResNet(18, deformable_stages=(3,))
    with pytest.raises(ValueError, match="must be odd"):
        DeformableConv2D(8, 4)


# === A whole model ===


LOSSES = {"rpn_class", "rpn_box", "mask"}
LOSSES |= {f"{name}_stage{i}" for name in ("class", "box") for i in STAGES}


def test_a_cascade_mask_rcnn_alone():
    """`tasks` leaves the semantic branch out, as of any model."""
    model = make_tiny_cascade(tasks=("instance",), lambda_instance=0.5)
    assert {tracker.name for tracker in model.loss_trackers} == LOSSES
    batch = {name: tf.constant(value) for name, value in make_batch(1, (64, 96)).items()}
    inputs = (batch[schema.IMAGES], batch[schema.IMAGE_SIZES])
    dense = model.dense_outputs(*inputs)
    terms = model.loss_terms(dense, batch)
    assert set(terms) == LOSSES
    counts = [int(terms[f"class_stage{i}"][1]) for i in STAGES]
    assert model.config["rois_per_image"] >= counts[0] >= counts[1] >= counts[2] > 0
    weighted = model.weighted_losses(terms)
    for name in ("class_stage2", "box_stage0"):
        total, count = terms[name]
        np.testing.assert_allclose(weighted[name], 0.5 * total / count, rtol=1e-6)
    rois, scores, _ = model.proposals(
        dense["features"], dense["rpn_logits"], dense["rpn_deltas"], inputs[1]
    )
    boxes, *_, count = model.detect(dense["features"], rois, scores, inputs[1])
    assert boxes.shape == (1, 7, 4) and int(count[0]) == 7


@pytest.mark.slow
def test_a_cascade_learns_and_is_saved_loaded_and_exported(tmp_path):
    model = make_tiny_cascade()
    model.compile("sgd")
    batch = make_batch(1, (64, 96))
    history = model.fit(batch, batch, batch_size=1, epochs=3, verbose=0).history
    assert LOSSES | {"semantic", "loss"} == set(history)
    assert history["loss"][-1] < history["loss"][0]
    # It started at zero, and learned.
    assert ops.convert_to_numpy(model.backbone.res5[0].conv2.conv.offset.kernel).any()
    model.save(tmp_path / "model.keras")
    with short_resnets():
        loaded = load_model(tmp_path / "model.keras")
    for a, b in zip(loaded.weights, model.weights, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(a, b)

    categories = CategoryTable(tuple(Category(i, f"c{i}", i < 5) for i in range(9)))
    split = SplitConfig(short_sides=(64,), max_long_side=96)
    merge = MergeConfig(score_threshold=0.0, stuff_area=16)
    predictor = Predictor(loaded, categories, merge, split)
    image = batch[schema.IMAGES].astype(np.uint8)
    (expected,) = predictor.run(image)
    assert len(np.unique(expected[schema.PANOPTIC_MAP])) > 1
    export_saved_model(predictor, tmp_path / "1")
    (received,) = SavedModelPredictor(tmp_path / "1").run(image)
    np.testing.assert_array_equal(received[schema.PANOPTIC_MAP], expected[schema.PANOPTIC_MAP])


@pytest.mark.slow
def test_xla_compiles_the_stages():
    """Losses and gradients of two, compiled, equal those that are not, in float64."""
    rng = np.random.default_rng(5)
    head = {"num_classes": 3, "units": 8}
    with float64():
        cascade = CascadeBoxHead((0.5, 0.6), WEIGHTS[:2], head)
    features = {
        f"P{i}": tf.constant(rng.normal(size=(2, 64 >> i, 96 >> i, 4))) for i in range(2, 6)
    }
    cascade.build({name: value.shape for name, value in features.items()})
    for variable in cascade.weights:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    corners = rng.uniform(0, 40, (2, 6, 2))
    rois = np.concatenate([corners, corners + rng.uniform(2, 40, (2, 6, 2))], axis=-1)
    targets = {
        "rois": tf.constant(rois),
        "classes": tf.constant([[1, 2, 3, 3, 3, 3], [3] * 6]),
        "matched_boxes": tf.constant(rois + 1),
        "is_valid": tf.constant([[True] * 6, [True] * 5 + [False]]),
        "gt_boxes": tf.constant(rois[:, :2] + 1),
        "gt_classes": tf.constant([[1, 2], [-1, -1]]),
        "gt_is_valid": tf.constant([[True, True], [False, False]]),
        "image_sizes": tf.constant([[64, 96], [50, 60]]),
    }

    def run():
        with tf.GradientTape() as tape:
            tape.watch(features)
            terms = cascade_losses(cascade, features, targets)
            total = sum(value for value, _ in terms.values())
        kernels = [stage.fc1.kernel.value for stage in cascade.stages]
        return terms, tape.gradient(total, [features["P2"], *kernels])

    expected, received = run(), tf.function(run, jit_compile=True)()
    assert set(expected[0]) == {f"{name}_stage{i}" for name in ("class", "box") for i in (0, 1)}
    assert int(expected[0]["class_stage0"][1]) == 11
    for a, b in zip(tf.nest.flatten(received), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
