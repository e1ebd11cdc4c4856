"""What an export does to the weights of a model: norms folded, bfloat16, and a static signature."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_model import make_tiny_model

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.backbones.conv_norm import ConvNorm
from tf_panoptic_fpn.backbones.network import NetworkBackbone
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import Config, MergeConfig, ServeConfig, SplitConfig
from tf_panoptic_fpn.export.check import example_image
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.export.stored_model import StoredModel
from tf_panoptic_fpn.inference.predictor import Predictor

pytestmark = pytest.mark.usefixtures("short_backbones")

CATEGORIES = CategoryTable(
    tuple(Category(k + 1, f"thing {k}", True) for k in range(5))
    + tuple(Category(k + 60, f"stuff {k}", False) for k in range(4))
)


def shaken(model):
    """The model, with norms that do something."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("scale", "gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("shift", "beta", "moving_mean"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


@pytest.fixture(scope="module")
def model():
    backbone = ResNet(18, "sync_batch_norm", 0, stem_channels=16, width=16, name="backbone")
    return shaken(make_tiny_model(backbone=backbone))


def dense(model, dtype=None):
    images = np.random.default_rng(1).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    inputs = {schema.IMAGES: tf.constant(images), schema.IMAGE_SIZES: tf.constant([[64, 96]])}
    run = model if dtype is None else StoredModel(model, dtype)
    return run(inputs, training=False)[schema.SEMANTIC_LOGITS].numpy()


def test_a_folded_model_gives_the_same(model):
    expected = dense(model)
    weights = [weight.numpy() for weight in model.weights]
    difference = np.abs(dense(model, "float32") - expected).max()
    assert 0 < difference < 1e-4 * np.abs(expected).max()
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), before)
    np.testing.assert_array_equal(dense(model), expected)  # it is as it was


def test_bfloat16_is_stored_and_not_computed_with(model):
    stored = StoredModel(model, "bfloat16").weights
    assert {v.dtype for v in stored if v.shape.rank > 1} == {tf.bfloat16}
    assert {v.dtype for v in stored if v.shape.rank == 1} == {tf.float32}
    expected, received = dense(model), dense(model, "bfloat16")
    assert received.dtype == np.float32
    difference = np.abs(received - expected).max() / np.abs(expected).max()
    assert 1e-4 < difference < 0.05


@pytest.mark.parametrize("norm", ["frozen_affine", "sync_batch_norm", "group_norm"])
@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_folded_norm_the_bias_remains(norm, groups):
    layer = ConvNorm(4, 3, norm, groups=groups, norm_groups=2)
    x = keras.Input((8, 8, 4))
    model = shaken(keras.Model(x, layer(x)))
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)
    ops, values = [], []
    for run in (model, StoredModel(with_config(model))):
        function = tf.function(run).get_concrete_function(tf.TensorSpec([1, 8, 8, 4]))
        ops.append([op.type for op in function.graph.get_operations()])
        values.append(function(tf.constant(images)))
    np.testing.assert_allclose(*values, atol=1e-5)
    count = len([op for op in ops[1] if op in ("Mul", "BiasAdd", "AddV2", "FusedBatchNormV3")])
    if norm != "group_norm":
        assert count == 1 and len(ops[1]) < len(ops[0])
    else:
        assert sorted(ops[0]) == sorted(ops[1])


def test_norms_that_follow_a_convolution_of_a_network_are_folded():
    """With a bias, depthwise, without a scale; not one that the map of the convolution is read
    beside, nor one behind an activation."""
    layers = keras.layers
    image = x = keras.Input((None, None, 3))
    for depth, options in enumerate(({}, {"use_bias": False}, {"groups": 3}, {}, {})):
        x = layers.Conv2D(6, 3, 2, "same", name=f"conv{depth}", **options)(x)
        x = layers.BatchNormalization(name=f"norm{depth}", scale=depth != 1)(x)
    depthwise = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(name="norm_depthwise")(depthwise)
    both = layers.Conv2D(12, 1, name="both")(x)
    x = both + layers.BatchNormalization(name="norm_both")(both)
    x = layers.Conv2D(4, 1, activation="relu", name="relu")(x)
    x = layers.BatchNormalization(name="norm_relu")(x)
    backbone = NetworkBackbone(keras.Model(image, x), norm="sync_batch_norm", freeze_at=0)
    for weight in backbone.weights:  # so that a missed bias tells
        weight.assign(weight + 0.1) if weight.name == "bias" else None
    model = shaken(keras.Model(image, backbone(image)))
    stored = StoredModel(with_config(model))
    folded = {norm.name for _, norm in stored._pairs}
    assert folded == {*(f"norm{depth}" for depth in range(5)), "norm_depthwise"}
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    expected, received = model(images), stored(images)
    for name, value in expected.items():
        difference = np.abs(value - received[name]).max()
        assert difference < 1e-5 * np.abs(value).max(), name
        np.testing.assert_array_equal(model(images)[name], value)  # it is as it was
    assert len(stored.weights) == len(model.weights) - 17


def with_config(model):
    model.config = {}
    return model


@pytest.mark.slow
def test_a_static_signature_serves_as_the_dynamic_one(model, tmp_path):
    """In one export with all that it can have: folded, in bfloat16 and compiled by XLA."""
    merge = MergeConfig(score_threshold=0.1, stuff_area=16)
    split = SplitConfig(short_sides=(32,), max_long_side=64)
    predictor = Predictor(model, CATEGORIES, merge, split)
    images = np.stack([example_image(48, 80), example_image(48, 80)[::-1]])
    expected = predictor.with_model(StoredModel(model, "bfloat16")).run(images)
    serve = ServeConfig(canvases=((48, 80),), batch=2, weights="bfloat16")
    export_saved_model(predictor, tmp_path / "1", Config(serve=serve))
    size = sum(file.stat().st_size for file in (tmp_path / "1" / "variables").iterdir())
    assert size < 0.55 * sum(weight.numpy().nbytes for weight in model.weights) + 20_000
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    for name in ("tensor", "compiled_48x80"):
        outputs = loaded.signatures[name](images=images)
        for row, one in enumerate(expected):
            differing = outputs[schema.PANOPTIC_MAP][row].numpy() != one[schema.PANOPTIC_MAP]
            assert differing.sum() <= 10, name
            np.testing.assert_allclose(outputs[schema.SCORES][row], one[schema.SCORES], atol=1e-4)
            assert one[schema.NUM_SEGMENTS] > 3
