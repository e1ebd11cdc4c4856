"""Backbones that Keras has: their maps, depths, weights, and what is refused."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.backbones.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    freeze,
    rate_factors,
    variable_factors,
)
from tf_panoptic_fpn.backbones.drop_path import DropPath, drop_path_rates
from tf_panoptic_fpn.backbones.keras_applications import (
    KerasApplication,
    application_names,
    preprocessing_of,
)
from tf_panoptic_fpn.backbones.make_backbone import make_backbone
from tf_panoptic_fpn.backbones.network import NetworkBackbone
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.backbones.simple_pyramid import SimplePyramid, cubic_weights
from tf_panoptic_fpn.errors import ConfigError, WeightsError
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.weights.detectron2_layout import backbone_names
from tf_panoptic_fpn.weights.pretrained import is_pretrained, pretrained_source

PLAIN = {"norm": "sync_batch_norm", "freeze_at": 2, "drop_path": 0.0}


def small_network(channels=3, strides=(2, 2, 2, 2, 2), name="own"):
    """Five convolutions of 4, 5, 6, 7 and 8 channels and a classifier."""
    x = image = keras.Input((None, None, channels))
    for i, stride in enumerate(strides):
        x = keras.layers.Conv2D(4 + i, 3, stride, "same", name=f"conv{i}")(x)
    x = keras.layers.Dense(3, name="classes")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, x, name=name)


@pytest.fixture(scope="module")
def own():
    keras.utils.set_random_seed(0)
    return make_backbone(small_network(), PLAIN)


def test_the_last_layer_of_each_stride_is_taken(own):
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    maps = own(images)
    assert {name: x.shape[1:] for name, x in maps.items()} == {
        "C2": (16, 24, 5),
        "C3": (8, 12, 6),
        "C4": (4, 6, 7),
        "C5": (2, 3, 8),
    }
    expected = keras.Model(own.network.inputs, own.network.get_layer("conv2").output)(images)
    np.testing.assert_array_equal(maps["C3"], expected)
    assert [[layer.name for layer in layers] for layers in own.depths()] == [
        ["conv0"],
        ["conv1"],
        ["conv2"],
        ["conv3"],
        ["conv4"],
    ]
    assert own.compute_output_shape((2, 64, None, 3))["C4"] == (2, 4, None, 7)
    assert {v.path.split("/")[-2] for v in own.trainable_weights} == {"conv2", "conv3", "conv4"}


def test_layer_wise_decay(own):
    """0.5 for the last of five depths, 0.5^5 for the stem; whatever has no depth keeps its rate."""
    by_layer = {path.split("/")[-2]: f for path, f in rate_factors(own, 0.5).items()}
    assert by_layer == {f"conv{i}": 0.5 ** (5 - i) for i in range(5)}
    assert rate_factors(own, 1.0) == {}
    resnet = ResNet(18, "group_norm", 0, stem_channels=32, width=32, name="backbone")
    keras.Model(x := keras.Input((None, None, 3)), resnet(x))
    factors = rate_factors(resnet, 0.9)
    assert len(factors) == len(resnet.weights)
    assert factors["backbone/stem/conv/kernel"] == pytest.approx(0.9**5)
    assert factors["backbone/res5_1/conv2/conv/kernel"] == pytest.approx(0.9)
    with pytest.raises(ConfigError, match=r"layer_decay.*Received: Dense"):
        rate_factors(keras.layers.Dense(1), 0.5)


def test_factors_of_an_optimizer(own):
    """That of the backbone times that of the depth; heads have neither."""
    optimizer = SGD(0.1, backbone_lr_factor=0.5, depth_factors=rate_factors(own, 0.5))
    head = keras.Variable(np.zeros(1), name="head")
    factors = variable_factors([*own.weights[:2], own.weights[-1], head], optimizer)
    assert [v.path for v in own.weights[:2]] == ["backbone/conv0/kernel", "backbone/conv0/bias"]
    assert factors == [0.5 * 0.5**5] * 2 + [0.5 * 0.5, 1.0]
    assert SGD.from_config(optimizer.get_config()).depth_factors == optimizer.depth_factors


class Scale(keras.layers.Layer):
    def build(self, _):
        self.scale = self.add_weight(shape=())

    def call(self, x):
        return x * self.scale


def test_what_has_no_name_is_counted_in_its_network():
    """So that the weights of one network are found in another of the same process."""

    def make():
        x = image = keras.Input((None, None, 3))
        for _ in range(5):
            x = Scale()(keras.layers.Conv2D(4, 3, 2, "same")(x))
        return make_backbone(keras.Model(image, x), PLAIN)

    names = [list(backbone_names(make())) for _ in range(2)]
    assert names[0] == names[1]
    expected = ["conv2d.kernel", "conv2d.bias", "scale.variable"]
    assert names[0][:3] == [f"backbone.bottom_up.{name}" for name in expected]
    assert names[0][-1].split(".")[2] == "scale_4"


def test_a_layer_of_the_callers_own_stays_as_it_is():
    inputs = keras.Input((None, None, 3))
    maps, x = {}, inputs
    for i in range(1, 6):
        x = keras.layers.Conv2D(4, 3, 2, "same")(x)
        maps[f"C{i}"] = x
    model = keras.Model(inputs, {k: maps[k] for k in ("C2", "C3", "C4", "C5")})
    assert make_backbone(model, PLAIN) is model
    bad = keras.Model(inputs, {"C2": maps["C3"], "C3": maps["C3"], "C4": x, "C5": x})
    with pytest.raises(ConfigError, match="strides 4, 8, 16 and 32; received of an image of 96"):
        make_backbone(bad, PLAIN)
    with pytest.raises(ConfigError, match=r"own cannot be a backbone: .* none has 8"):
        make_backbone(small_network(strides=(2, 2, 4, 2, 1)), PLAIN)


def test_own_networks_are_saved_by_their_layers(own):
    config = own.get_config()
    again = NetworkBackbone.from_config(json.loads(json.dumps(config)))
    images = np.ones((1, 64, 64, 3), "float32")
    again.network.set_weights(own.network.get_weights())
    np.testing.assert_array_equal(again(images)["C5"], own(images)["C5"])
    received = again.get_config()
    assert received.pop("network")["class_name"] == config.pop("network")["class_name"]
    assert received == config


def test_batch_norms_are_frozen_or_trained():
    x = image = keras.Input((None, None, 3))
    for _ in range(5):
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 1, 2)(x))
    network = keras.Model(image, x)
    frozen = NetworkBackbone(network, norm="frozen_affine", freeze_at=0)
    assert len(frozen.trainable_weights) == 10
    trained = NetworkBackbone(network, norm="sync_batch_norm", freeze_at=0)
    assert len(trained.trainable_weights) == 20
    with pytest.raises(ConfigError, match=r"norm.*Received: 'group_norm'"):
        NetworkBackbone(network, norm="group_norm")


def test_freezing_goes_by_fifths():
    class Deep(keras.layers.Layer):
        def depths(self):
            return self.parts

    deep = Deep()
    deep.parts = [[keras.layers.Dense(1)] for _ in range(13)]
    freeze(deep, 2)  # 5.2 of 13
    assert [layer.trainable for [layer] in deep.parts] == [False] * 6 + [True] * 7


def test_drop_path_keeps_the_mean():
    layer = DropPath(0.25)
    ones = np.ones((4000, 3), "float32")
    dropped = np.asarray(layer(ones, training=True))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert (dropped == dropped[:, :1]).all()
    assert abs(dropped.mean() - 1) < 0.05
    assert layer(ones, training=False) is not None and (np.asarray(layer(ones)) == 1).all()
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_preprocessing_by_family():
    torch = (IMAGENET_MEAN, IMAGENET_STD)
    assert preprocessing_of("ConvNeXtTiny") == torch
    assert preprocessing_of("EfficientNetB0") == torch
    assert preprocessing_of("EfficientNetV2B0") == torch
    assert preprocessing_of("EfficientNetV2S") == ((128.0,) * 3, (128.0,) * 3)
    assert preprocessing_of("MobileNetV3Small") == ((127.5,) * 3, (127.5,) * 3)
    assert preprocessing_of("ResNet50")[0] == (123.68, 116.779, 103.939)
    assert preprocessing_of("ResNet50V2") == ((127.5,) * 3, (127.5,) * 3)
    assert len(application_names()) > 30
    with pytest.raises(ConfigError, match=r"'MobilNetV3Small'.*did you mean MobileNetV3Small"):
        preprocessing_of("MobilNetV3Small")


def test_the_network_reads_what_keras_own_preprocessing_gives():
    """MobileNetV3 with its preprocessing inside, on the same pixels."""
    keras.utils.set_random_seed(0)
    whole = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(None, None, 3)
    )
    backbone = KerasApplication("MobileNetV3Small", name="backbone")
    backbone.network.set_weights(whole.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    normalised = (pixels - np.float32(backbone.pixel_mean)) / np.float32(backbone.pixel_std)
    scale = np.abs(whole(pixels)).max()
    np.testing.assert_allclose(backbone(normalised)["C5"], whole(pixels), atol=1e-5 * scale)
    assert all(v.path.startswith("backbone/") for v in backbone.weights)
    with pytest.raises(ConfigError, match="`drop_path` must be 0 with MobileNetV3Small"):
        KerasApplication("MobileNetV3Small", drop_path=0.1)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("URL fetch failure on https://a.b/c/mobilenet_no_top.h5: None -- no network")

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", offline)
    with pytest.raises(WeightsError, match=r"put mobilenet_no_top\.h5 into .*models, or name"):
        pretrained_source("pretrained", "keras_applications/MobileNetV3Small")
    with pytest.raises(WeightsError, match=r"absent\.h5: no such file"):
        pretrained_source(str(tmp_path / "absent.h5"), "keras_applications/MobileNetV3Small")
    (tmp_path / "other.h5").write_text("my thesis")
    with pytest.raises(WeightsError, match=r"other\.h5: does not fit MobileNetV3Small"):
        pretrained_source(str(tmp_path / "other.h5"), "keras_applications/MobileNetV3Small")
    with pytest.raises(ConfigError, match="with resnet50 it must name the weights"):
        pretrained_source("pretrained", "resnet50")
    assert is_pretrained("a.h5", "keras_applications/ConvNeXtTiny")
    assert not is_pretrained("a.h5", "resnet50")


def test_simple_pyramid():
    """By hand: a constant map through kernels of ones, without the layer norm's branch."""
    pyramid = SimplePyramid()
    inputs = np.arange(2 * 4 * 6 * 8, dtype="float32").reshape(2, 4, 6, 8)
    maps = pyramid(inputs)
    assert {name: x.shape for name, x in maps.items()} == {
        "C2": (2, 16, 24, 2),
        "C3": (2, 8, 12, 4),
        "C4": (2, 4, 6, 8),
        "C5": (2, 2, 3, 8),
    }
    expected = pyramid.compute_output_shape(inputs.shape)
    assert {name: tuple(x.shape) for name, x in maps.items()} == expected
    np.testing.assert_array_equal(maps["C4"], inputs)
    np.testing.assert_array_equal(maps["C5"], inputs[:, 1::2, 1::2])  # ascending: the last is most
    cell = inputs[0, 0, 0]  # each cell becomes 2 x 2 by the kernel [2, 2, out, in]
    by_hand = np.einsum("yxoi,i->yxo", np.asarray(pyramid.up3.kernel), cell)
    np.testing.assert_allclose(maps["C3"][0, :2, :2], by_hand, rtol=1e-4, atol=1e-4)


def test_cubic_weights():
    """Keys' kernel with a = -0.5: halves between cells have -1/16, 9/16, 9/16, -1/16."""
    weights = np.asarray(cubic_weights(8, 4, "float32"))  # points 0.5, 2.5, 4.5, 6.5
    np.testing.assert_allclose(weights[1], np.float32([0, -1, 9, 9, -1, 0, 0, 0]) / 16, atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(cubic_weights(5, 5, "float32"), np.eye(5), atol=1e-6)


def test_separable_heads_save_and_cost_less():
    options = {
        "num_thing_classes": 2,
        "num_stuff_classes": 2,
        "backbone": make_backbone(small_network(), PLAIN),
        "fpn_channels": 32,
        "semantic_channels": 32,
        "box_head_units": 8,
        "mask_head_channels": 32,
    }
    plain, separable = (PanopticFPN(**options, separable_heads=s) for s in (False, True))
    # A 3x3 of 32 channels: 9 x 32 x 32 against 9 x 32 + 32 x 32.
    conv, split = plain.rpn_head.conv, separable.rpn_head.conv
    assert conv.count_params() - split.count_params() == 9 * 32 * 32 - (9 * 32 + 32 * 32)
    assert plain.config["pixel_mean"] == IMAGENET_MEAN  # of the backbone
    # 4 of the pyramid, the RPN's, 1 + 1 + 2 + 3 of the semantic branch, 4 of the mask head
    assert plain.count_params() - separable.count_params() == 16 * (9 * 32 * 32 - 41 * 32)
    with pytest.raises(ValueError, match="`separable_heads` takes `fpn_groups` of 1"):
        PanopticFPN(**options, separable_heads=True, fpn_groups=2)
    x = ops.ones((1, 8, 8, 32))
    kernels = split.depthwise_kernel, split.pointwise_kernel
    by_hand = ops.relu(ops.separable_conv(x, *kernels, padding="same") + split.bias)
    np.testing.assert_allclose(split(x), by_hand, atol=1e-6)
