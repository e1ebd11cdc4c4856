"""The variants of the paper: each option does what it says, in numbers."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops
from small_model import short_resnets

from tf_panoptic_fpn import PanopticFPN, schema
from tf_panoptic_fpn.backbones.conv_norm import Conv2D, ConvNorm
from tf_panoptic_fpn.backbones.resnet import ResNet, make_backbone
from tf_panoptic_fpn.models.fpn import FPN
from tf_panoptic_fpn.models.semantic_head import SemanticHead
from tf_panoptic_fpn.ops.roi_align import roi_align

INSTANCE_KEYS = {
    schema.BOXES,
    schema.SCORES,
    schema.CLASSES,
    schema.NUM_DETECTIONS,
    schema.MASK_PROBS,
}
TINY = {
    "num_thing_classes": 3,
    "num_stuff_classes": 2,
    "fpn_channels": 16,
    "semantic_channels": 32,
    "box_head_units": 16,
    "mask_head_channels": 8,
    "rpn_top_k_train": (20, 20),
    "rpn_top_k_test": (20, 10),
    "rpn_samples": 16,
    "rois_per_image": 8,
    "score_threshold": 0.0,
    "max_detections": 5,
}


def tiny_model(**options):
    backbone = ResNet(18, stem_channels=8, width=8, name="backbone")
    return PanopticFPN(**{**TINY, "backbone": backbone, **options})


def tiny_images(count=1, size=(64, 96)):
    return np.random.default_rng(0).uniform(0, 255, (count, *size, 3)).astype(np.float32)


def tiny_batch():
    """One image with an instance of class 2, things in the upper half and stuff 1 below."""
    semantic = np.ones((1, 64, 96), np.int32)
    semantic[:, :32] = 0
    return {
        schema.IMAGES: tiny_images(),
        schema.IMAGE_SIZES: np.int32([[64, 96]]),
        schema.IMAGE_SEEDS: np.int32([7]),
        schema.GT_BOXES: np.float32([[[8, 10, 40, 60]]]),
        schema.GT_CLASSES: np.int32([[2]]),
        schema.GT_IS_CROWD: np.zeros((1, 1), bool),
        schema.GT_MASKS: np.ones((1, 1, schema.GT_MASK_SIZE, schema.GT_MASK_SIZE), np.uint8),
        schema.SEMANTIC: semantic,
    }


def gradients(model, batch, tasks=None):
    """Path -> gradient of the losses, or None where no loss depends on the weight."""
    import tensorflow as tf

    inputs = {name: batch[name] for name in (schema.IMAGES, schema.IMAGE_SIZES)}
    with tf.GradientTape() as tape:
        terms = model.loss_terms(model(inputs, training=True), batch, tasks)
        total = sum(model.weighted_losses(terms).values())
    variables = model.trainable_variables
    values = tape.gradient(total, [v.value for v in variables])
    return dict(zip([v.path for v in variables], values, strict=True))


def reached(gradients_by_path):
    """The model's parts that a gradient reaches."""
    return {path.split("/")[0] for path, value in gradients_by_path.items() if value is not None}


def num_parameters(layer, input_shape):
    """Weights of a layer, without making them."""
    with keras.StatelessScope(initialize_variables=False):
        layer.build(input_shape)
    return sum(int(np.prod(variable.shape)) for variable in layer.weights)


# === Backbones ===


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # torchvision's counts with the classifier, 2048 x 1000 + 1000, taken off.
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet152", 60_192_808 - 2_049_000),
        ("resnext50_32x4d", 25_028_904 - 2_049_000),
        ("resnext101_32x8d", 88_791_336 - 2_049_000),
        ("resnext101_64x4d", 83_455_272 - 2_049_000),
        # As resnext101_32x8d, with 4 blocks more in res3 and 13 more in res4. A block of output
        # channels c, whose 3x3 is c wide: c^2 + 9 c^2 / 32 + c^2 weights and 2 (c + c + c) of the
        # norms.
        (
            "resnext152_32x8d",
            88_791_336
            - 2_049_000
            + 4 * (2 * 512**2 + 9 * 512**2 // 32 + 6 * 512)
            + 13 * (2 * 1024**2 + 9 * 1024**2 // 32 + 6 * 1024),
        ),
    ],
)
def test_parameters_of_the_backbones(name, parameters):
    backbone = make_backbone(name, "frozen_affine", 2, True)
    assert num_parameters(backbone, (None, 64, 64, 3)) == parameters


def test_a_resnext_strides_in_the_3x3():
    first = make_backbone("resnext101_32x8d", "frozen_affine", 2, stride_in_1x1=True).res4[0]
    assert [conv.strides for conv in first.branch] == [1, 2, 1]
    assert [conv.groups for conv in first.branch] == [1, 32, 1]
    assert [conv.filters for conv in first.branch] == [1024, 1024, 1024]
    first = make_backbone("resnet101", "frozen_affine", 2, stride_in_1x1=True).res4[0]
    assert [conv.strides for conv in first.branch] == [2, 1, 1]


@pytest.mark.parametrize("name", ["resnet", "resnext101", "resnext101_32x8", "vgg16"])
def test_unknown_backbones(name):
    with pytest.raises(ValueError, match="`backbone` must be"):
        make_backbone(name, "frozen_affine", 2, True)
    with pytest.raises(ValueError, match="has no groups"):
        ResNet(18, groups=2)


@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "valid")])
def test_a_grouped_convolution_is_one_for_each_group(strides, padding):
    import tensorflow as tf

    layer = Conv2D(6, 3, strides=strides, groups=2, padding=padding, use_bias=True)
    x = tf.random.stateless_normal((2, 9, 11, 4), seed=(0, 1))
    layer.build(x.shape)
    layer.bias.assign(np.arange(6))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(y**2)
    dx, dw = tape.gradient(total, [x, layer.kernel.value])
    with tf.GradientTape() as tape:
        tape.watch(x)
        halves = [
            ops.conv(x[..., 2 * i : 2 * i + 2], w, strides, padding) + np.arange(3 * i, 3 * i + 3)
            for i, w in enumerate(tf.split(layer.kernel.value, 2, axis=-1))
        ]
        expected = tf.concat(halves, axis=-1)
        total = tf.reduce_sum(expected**2)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for value, other in zip((dx, dw), tape.gradient(total, [x, layer.kernel.value]), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-3)

    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(x), y, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "trained_per_conv"),
    [("frozen_affine", 1), ("group_norm", 3), ("sync_batch_norm", 3)],
)
def test_what_is_trained_in_a_backbone(norm, trained_per_conv):
    backbone = ResNet(18, norm, freeze_at=3, stem_channels=32, width=32)
    backbone.build((None, 64, 64, 3))
    trained = {v.path.split("/")[1].split("_")[0] for v in backbone.trainable_variables}
    assert trained == {"res4", "res5"}
    # Two blocks a stage, two convolutions a block and a shortcut in the first.
    assert len(backbone.trainable_variables) == 2 * 5 * trained_per_conv


def test_batch_norm_keeps_running_statistics():
    conv = ConvNorm(4, 1, "sync_batch_norm", relu=False)
    x = np.random.default_rng(0).normal(3, 2, (2, 8, 8, 3)).astype(np.float32)
    conv.build(x.shape)
    before = ops.convert_to_numpy(conv.conv(x))
    y = ops.convert_to_numpy(conv(x, training=True))
    mean, variance = before.mean((0, 1, 2)), before.var((0, 1, 2))
    np.testing.assert_allclose(y, (before - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(conv.norm.moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(conv.norm.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)
    assert conv.norm.synchronized

    conv.trainable = False  # a frozen stage
    frozen = ops.convert_to_numpy(conv(x, training=True))
    np.testing.assert_allclose(conv.norm.moving_mean, 0.1 * mean, rtol=1e-4)
    scale = np.sqrt(0.9 + 0.1 * variance + 1e-5)
    np.testing.assert_allclose(frozen, (before - 0.1 * mean) / scale, rtol=1e-3, atol=1e-4)


# === Tasks ===


@pytest.mark.parametrize(
    ("tasks", "keys", "parts"),
    [
        (("instance",), INSTANCE_KEYS, {"rpn_head", "box_head", "mask_head"}),
        (("semantic",), {schema.SEMANTIC_LOGITS}, {"semantic_head"}),
        (
            ("semantic", "instance"),
            INSTANCE_KEYS | {schema.SEMANTIC_LOGITS},
            {"rpn_head", "box_head", "mask_head", "semantic_head"},
        ),
    ],
)
def test_tasks(tasks, keys, parts):
    model = tiny_model(tasks=tasks)
    outputs = model(tiny_images())
    assert set(outputs) == keys
    gradients_by_path = gradients(model, tiny_batch())
    assert reached(gradients_by_path) == {"backbone", "fpn", *parts}
    heads = {v.path.split("/")[0] for v in model.weights} - {"backbone", "fpn", "seed_generator"}
    assert heads == parts
    names = {"rpn_class", "rpn_box", "class", "box", "mask"} if "instance" in tasks else set()
    names |= {"semantic"} if "semantic" in tasks else set()
    assert {tracker.name for tracker in model.loss_trackers} == names


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_a_task_alone_gives_what_it_gives_in_company(task):
    both = tiny_model()
    alone = tiny_model(tasks=[task])
    weights = {v.path: v for v in both.weights}
    for variable in alone.weights:
        if "seed_generator" not in variable.path:
            variable.assign(weights[variable.path])
    expected = both(tiny_images())
    for name, value in alone(tiny_images()).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_one_task_fits(task):
    model = tiny_model(tasks=[task])
    model.compile("sgd")
    batch = tiny_batch()
    history = model.fit(batch, batch, batch_size=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert ("semantic" in history) == (task == "semantic")
    assert ("mask" in history) == (task == "instance")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": []}, "`tasks` must be"),
        ({"tasks": ["instance", "instance"]}, "`tasks` must be"),
        ({"tasks": ["depth"]}, "`tasks` must be"),
        ({"tasks": ["semantic"], "fpn_groups": 2}, "`fpn_groups` must be 1"),
        ({"fpn_groups": 4}, "`fpn_groups` must be 1"),
        ({"semantic_things": "none"}, "`semantic_things` must be"),
        ({"semantic_design": "deep"}, "`design` must be"),
        ({"semantic_fuse": "max"}, "`fuse` must be"),
        ({"backbone": "resnet50", "norm": "batch"}, "`norm` must be"),
    ],
)
def test_wrong_choices(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**options)


# === Semantic branch ===


def pyramid(channels, size=(32, 48)):
    rng = np.random.default_rng(1)
    shapes = {f"P{i}": (1, size[0] >> (i - 2), size[1] >> (i - 2), channels) for i in range(2, 7)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("channels", [64, 128, 256])
@pytest.mark.parametrize(
    ("design", "fuse", "entries", "inner", "fused"),
    [
        # Convolutions that read the pyramid, those that read the branch, maps that are fused.
        ("staged", "sum", 4, 3, 1),
        ("staged", "concat", 4, 3, 4),
        ("two_conv", "concat", 4, 4, 4),
        ("two_conv", "sum", 4, 4, 1),
    ],
)
def test_parameters_of_the_semantic_branch(channels, design, fuse, entries, inner, fused):
    head = SemanticHead(54, channels, design, fuse)
    count = num_parameters(head, {f"P{i}": (None, None, None, 256) for i in range(2, 7)})
    convs = 9 * channels * (256 * entries + channels * inner)
    norms = 2 * channels * (entries + inner)
    assert count == convs + norms + (fused * channels + 1) * 54


def test_concatenation_is_a_sum_of_predictions():
    """With the same predictor for each level, concat is four times the mean, i.e. the sum."""
    features = pyramid(8)
    total, concat = SemanticHead(3, 32), SemanticHead(3, 32, fuse="concat")
    expected = total(features)
    concat(features)
    for a, b in zip(total.branches, concat.branches, strict=True):
        for source, target in zip(a, b, strict=True):
            target.set_weights(source.get_weights())
    kernel = ops.convert_to_numpy(total.predictor.kernel)
    concat.predictor.kernel.assign(np.concatenate([kernel] * 4, axis=2))
    assert concat(features).shape == (1, 32, 48, 3)
    np.testing.assert_allclose(concat(features), expected, atol=1e-4)


def test_the_early_design_upsamples_once():
    """A constant P5 stays constant through its two convolutions but at the border."""
    head = SemanticHead(3, 32, "two_conv", "concat")
    features = pyramid(8)
    assert head(features).shape == (1, 32, 48, 3)
    assert [len(branch) for branch in head.branches] == [2, 2, 2, 2]
    x = features["P5"]
    for conv in head.branches[3]:
        x = conv(x)
    expected = ops.image.resize(x, (32, 48), interpolation="bilinear")
    kernel = ops.convert_to_numpy(head.predictor.kernel)
    kernel[:, :, :96] = 0  # P2, P3 and P4
    head.predictor.kernel.assign(kernel)
    np.testing.assert_allclose(head(features), expected @ kernel[0, 0, 96:], atol=1e-4)


def test_every_thing_in_the_semantic_branch():
    assert tiny_model().semantic_head.num_classes == 1 + 2
    model = tiny_model(semantic_things="all")
    assert model.semantic_head.num_classes == 3 + 2
    assert model(tiny_images())[schema.SEMANTIC_LOGITS].shape == (1, 16, 24, 5)


# === Pyramid ===


def test_a_grouped_pyramid_is_two_pyramids():
    features = {f"C{i}": value for i, value in enumerate(pyramid(8).values(), start=2)}
    del features["C6"]
    grouped, halves = FPN(16, groups=2), [FPN(8), FPN(8)]
    outputs = grouped(features)
    for i, half in enumerate(halves):
        half(features)
        mine = slice(8 * i, 8 * i + 8)
        for source, target in zip(
            grouped.laterals + grouped.outputs, half.laterals + half.outputs, strict=True
        ):
            target.kernel.assign(source.kernel[..., mine])
            target.bias.assign(source.bias[mine])
        for name, value in half(features).items():
            np.testing.assert_allclose(outputs[name][..., mine], value, atol=1e-5, err_msg=name)


def test_each_branch_trains_its_own_half_of_the_pyramid():
    model = tiny_model(fpn_groups=2)
    batch = tiny_batch()
    for task, mine, other in (
        ("instance", slice(0, 8), slice(8, 16)),
        ("semantic", slice(8, 16), slice(0, 8)),
    ):
        gradients_by_path = gradients(model, batch, [task])
        kernels = [
            np.asarray(value)
            for path, value in gradients_by_path.items()
            if path.startswith("fpn/") and path.endswith("kernel") and value is not None
        ]
        assert len(kernels) == 8
        assert all((kernel[..., other] == 0).all() for kernel in kernels)
        assert any((kernel[..., mine] != 0).any() for kernel in kernels)


def test_a_grouped_pyramid_halves_the_heads_inputs():
    model = tiny_model(fpn_groups=2)
    assert model.semantic_head.branches[0][0].conv.kernel.shape == (3, 3, 8, 32)
    assert model.rpn_head.conv.kernel.shape == (3, 3, 8, 8)
    assert model.box_head.fc1.kernel.shape == (7 * 7 * 8, 16)
    assert model.mask_head.convs[0].kernel.shape == (3, 3, 8, 8)


# === Losses and sampling ===


def test_lambdas_weigh_the_branches():
    batch = tiny_batch()
    model = tiny_model(lambda_instance=0.25, lambda_semantic=0.75)
    inputs = {name: batch[name] for name in (schema.IMAGES, schema.IMAGE_SIZES)}
    terms = model.loss_terms(model(inputs, training=True), batch)
    weighted = model.weighted_losses(terms)
    weights = {"class": 0.25, "box": 0.25, "mask": 0.25, "semantic": 0.75}
    for name, (total, count) in terms.items():
        expected = weights.get(name, 1) * total / ops.maximum(count, 1)
        np.testing.assert_allclose(weighted[name], expected, rtol=1e-6)


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_sampling_reaches_both_heads(ratio):
    model = tiny_model(roi_sampling_ratio=ratio)
    features = pyramid(16)
    del features["P6"]
    rois = np.float32([[[3, 5, 90, 120]]])
    x = ops.reshape(roi_align(features, rois, 7, ratio), (1, 1, -1))
    head = model.box_head
    np.testing.assert_allclose(
        head(features, rois)[0], head.classes(head.fc2(head.fc1(x))), atol=1e-6
    )
    assert model.mask_head.sampling_ratio == ratio


# === Saving ===

CHANGED = {
    "num_thing_classes": 2,
    "num_stuff_classes": 3,
    "tasks": ["semantic", "instance"],
    "backbone": "resnext50_32x4d",
    "norm": "sync_batch_norm",
    "freeze_at": 1,
    "stride_in_1x1": False,
    "norm_groups": 4,
    "deformable_stages": [5],
    "deformable_groups": 2,
    "deformable_modulated": True,
    "fpn_channels": 16,
    "fpn_groups": 2,
    "fpn_norm": "group_norm",
    "semantic_channels": 32,
    "semantic_design": "two_conv",
    "semantic_fuse": "concat",
    "semantic_things": "all",
    "box_head": "four_conv_one_fc",
    "box_head_units": 8,
    "box_head_channels": 4,
    "box_head_norm": "group_norm",
    "class_agnostic_boxes": True,
    "cascade_ious": [0.5, 0.75],
    "cascade_delta_weights": [[10.0, 10.0, 5.0, 5.0], [40.0, 40.0, 20.0, 20.0]],
    "mask_head_channels": 4,
    "mask_head_convolutions": 2,
    "mask_head_norm": "group_norm",
    "anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0],
    "anchor_ratios": [1.0, 2.0],
    "rpn_top_k_train": [30, 20],
    "rpn_top_k_test": [20, 10],
    "rpn_nms_iou": 0.6,
    "rpn_samples": 32,
    "rois_per_image": 16,
    "roi_sampling_ratio": 2,
    "score_threshold": 0.01,
    "nms_iou": 0.4,
    "max_detections": 6,
    "pixel_mean": [120.0, 110.0, 100.0],
    "pixel_std": [58.0, 57.0, 56.0],
    "lambda_instance": 0.5,
    "lambda_semantic": 0.75,
}


@pytest.fixture
def short():
    with short_resnets():
        yield


def test_every_argument_survives_a_file(tmp_path, short):
    parameters = inspect.signature(PanopticFPN).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    for name in ("drop_path", "separable_heads"):  # not with ResNets, two groups: tests/backbones
        del defaults[name]
    assert set(CHANGED) == set(defaults)
    assert all(CHANGED[name] != default for name, default in defaults.items())
    model = PanopticFPN(**CHANGED)
    for variable in model.backbone.weights:  # so that batch norms show
        if variable.name == "moving_mean":
            variable.assign(np.linspace(-1, 1, variable.shape[0]))
    expected = model(tiny_images())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, value in CHANGED.items():
        assert json.loads(json.dumps(loaded.config[name])) == value, name  # tuples as lists
    for name, value in loaded(tiny_images()).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]


def test_a_resnext_survives_its_config():
    backbone = make_backbone("resnext101_64x4d", "group_norm", 3, True)
    copy = ResNet.from_config(backbone.get_config())
    assert copy.config == backbone.config
    assert copy.config["groups"] == 64
    assert copy.config["group_width"] == 4
