"""Backbones of KerasHub equal KerasHub's own models on the same pixels."""

import importlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import ROOT

from tf_panoptic_fpn.backbones.keras_hub import (
    ARCHITECTURES,
    KerasHubBackbone,
    from_instance,
    make_keras_hub,
)
from tf_panoptic_fpn.backbones.make_backbone import make_backbone
from tf_panoptic_fpn.backbones.vision_transformer import VisionTransformer
from tf_panoptic_fpn.errors import ConfigError, WeightsError
from tf_panoptic_fpn.weights.pretrained import is_pretrained, pretrained_source

hub = pytest.importorskip("keras_hub", reason="pip install .[keras_hub]")

TINY_VIT = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "intermediate_dim": 64}


def tiny_resnet():
    return hub.models.ResNetBackbone(
        **{**ARCHITECTURES["resnet_18_imagenet"][1], "stackwise_num_blocks": [1, 1, 1, 1]}
    )


def randomise(network, seed=0):
    """Weights of every size, so that none can be lost without a difference."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if variable.dtype.startswith("float"):
            low = 0.5 if "variance" in variable.path else -0.1
            variable.assign(rng.uniform(low, low + 0.3, variable.shape))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(2, 96, 96, 3)).astype("float32")


@pytest.mark.parametrize("name", ["ResNetBackbone", "EfficientNetBackbone"])
def test_maps_of_a_pyramid(name, images, monkeypatch):
    """KerasHub's configuration of an EfficientNet leaves out the width of its last convolution."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    make = importlib.import_module("hub_presets").make_hub_backbone
    network = tiny_resnet() if name == "ResNetBackbone" else make(name)
    randomise(network)
    backbone = from_instance(network, "frozen_affine", 2, 0.0)
    expected = keras.Model(network.inputs, network.pyramid_outputs)(images)
    received = backbone(images, training=True)  # frozen: as at test
    for level in (2, 3, 4, 5):
        np.testing.assert_allclose(
            received[f"C{level}"], expected[f"P{level}"], rtol=1e-5, atol=1e-5
        )
    again = KerasHubBackbone.from_config(json.loads(json.dumps(backbone.get_config())))
    again.set_weights(backbone.get_weights())
    np.testing.assert_array_equal(again(images)["C5"], backbone(images)["C5"])


@pytest.mark.parametrize("registers", [0, 2])
def test_tokens_of_dinov2(images, registers):
    sizes = {"image_shape": (84, 84, 3), "position_embedding_shape": (70, 70, 3)}
    network = hub.models.DINOV2Backbone(14, **TINY_VIT, **sizes, num_register_tokens=registers)
    randomise(network)
    embeddings = network.embeddings
    embeddings.interpolated_position_embeddings.assign(
        embeddings._interpolate_position_embeddings(
            embeddings.position_embeddings, 14, (70, 70), (84, 84)
        )
    )
    backbone = from_instance(network, "frozen_affine", 0, 0.0)
    crop = images[:, :84, :84]
    expected = np.asarray(network({"images": crop}))
    # TensorFlow's bicubic kernel rounds places to 1 / 1024 of a cell.
    np.testing.assert_allclose(backbone.tokens(crop), expected, atol=1e-4)
    # Of their own grid they are as they are.
    embeddings.position_embeddings.assign(embeddings.position_embeddings * 2)
    same = hub.models.DINOV2Backbone(
        14, **TINY_VIT, image_shape=(70, 70, 3), num_register_tokens=registers,
        position_embedding_shape=(70, 70, 3),
    )  # fmt: skip
    randomise(same)
    positions = same.embeddings
    positions.interpolated_position_embeddings.assign(positions.position_embeddings)
    backbone = from_instance(same, "frozen_affine", 0, 0.0)
    crop = images[:, :70, :70]
    np.testing.assert_allclose(backbone.tokens(crop), same({"images": crop}), atol=1e-5)


def test_a_vision_transformer_as_a_backbone(images):
    """DINOv3: tokens as KerasHub's, then maps of four strides, on a canvas that is not square."""
    network = hub.models.DINOV3Backbone(16, **TINY_VIT, image_shape=(96, 96, 3))
    randomise(network)
    backbone = from_instance(network, "frozen_affine", 2, 0.0)
    expected = np.asarray(network({"pixel_values": images}))
    np.testing.assert_allclose(backbone.tokens(images), expected, atol=1e-5)
    maps = backbone(images)
    cells = expected[:, 5:].reshape(2, 6, 6, 32)  # behind the class and four registers
    np.testing.assert_allclose(maps["C4"], cells, atol=1e-5)
    assert {n: x.shape[1:] for n, x in backbone(images[:, :64]).items()} == {
        "C2": (16, 24, 8),
        "C3": (8, 12, 16),
        "C4": (4, 6, 32),
        "C5": (2, 3, 32),
    }
    # As a graph is traced for training and for serving.
    traced = tf.function(backbone, [tf.TensorSpec((None, None, None, 3))], autograph=False)
    wide = images[:, :64]
    np.testing.assert_allclose(traced(wide)["C3"], backbone(wide)["C3"], atol=1e-5)
    # Embeddings and the first of two blocks are 2 of 3 depths: 2 / 5 of them are frozen.
    assert [layers[0].trainable for layers in backbone.depths()] == [False, False, True]
    again = VisionTransformer.from_config(json.loads(json.dumps(backbone.get_config())))
    again.build((None, None, None, 3))
    again.set_weights(backbone.get_weights())
    np.testing.assert_array_equal(again(images)["C2"], maps["C2"])


def test_maps_of_mit(images):
    network = hub.models.MiTBackbone(
        layerwise_depths=[1, 2, 1, 1], num_layers=4, layerwise_num_heads=[1, 1, 2, 2],
        layerwise_sr_ratios=[8, 4, 2, 1], max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3], layerwise_strides=[4, 2, 2, 2],
        image_shape=(96, 96, 3), hidden_dims=[8, 8, 16, 16],
    )  # fmt: skip
    randomise(network)
    backbone = from_instance(network, "frozen_affine", 2, 0.0)
    expected = keras.Model(network.inputs, network.pyramid_outputs)(images)
    maps = backbone(images, training=True)
    for level in (2, 3, 4, 5):
        np.testing.assert_allclose(maps[f"C{level}"], expected[f"P{level - 1}"], atol=1e-5)
    # The stem is the patches' convolution; the first stage is frozen with it, not the second.
    frozen = [layer.name for layer in backbone.network.layers if not layer.trainable]
    assert {name.split("_")[0] for name in frozen} == {"stage0"}
    assert backbone(images[:, :64])["C4"].shape == (2, 4, 6, 16)


def test_stages_of_swin(images):
    """Each before its cells are merged; windows of 3 on maps of 24, 12, 6 and 3 cells."""
    network = hub.models.SwinTransformerBackbone(
        (96, 96, 3), embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), window_size=3
    )
    randomise(network)
    backbone = make_backbone(network, {"norm": "frozen_affine", "freeze_at": 2, "drop_path": 0.1})
    maps = backbone(images)
    np.testing.assert_allclose(maps["C5"], np.reshape(network(images), (2, 3, 3, 64)), atol=1e-5)
    x = network.patch_embedding(images)
    for block in network.stages[0].blocks:
        x = block(x)
    new_norm = keras.layers.LayerNormalization(epsilon=1e-5)
    np.testing.assert_allclose(maps["C2"], np.reshape(new_norm(x), (2, 24, 24, 8)), atol=1e-5)
    again = KerasHubBackbone.from_config(json.loads(json.dumps(backbone.get_config())))
    again.set_weights(backbone.get_weights())
    np.testing.assert_array_equal(again(images[:, :64])["C3"], backbone(images[:, :64])["C3"])


def test_drop_path_of_a_transformer(images):
    network = hub.models.DINOV3Backbone(16, **TINY_VIT, image_shape=(96, 96, 3))
    randomise(network)
    keras.utils.set_random_seed(0)
    backbone = from_instance(network, "frozen_affine", 0, 0.5)
    many = np.repeat(images[:1], 16, axis=0)
    outputs = np.asarray(backbone.tokens(many, training=True))
    at_test = np.asarray(backbone.tokens(many))
    assert len({x.tobytes() for x in outputs.round(4)}) == 2  # the last block is there or not
    np.testing.assert_allclose(at_test, np.repeat(at_test[:1], 16, axis=0), atol=1e-6)


def test_a_preset_on_disk(tmp_path):
    network = tiny_resnet()
    randomise(network)
    network.save_to_preset(str(tmp_path / "preset"))
    converter = {"config": {"scale": [0.02, 0.04, 0.05], "offset": [-2.0, -1.0, 0.0]}}
    (tmp_path / "preset/image_converter.json").write_text(json.dumps(converter))
    name = f"keras_hub/{tmp_path}/preset"
    backbone = make_keras_hub(name.removeprefix("keras_hub/"), "frozen_affine", 0)
    assert backbone.pixel_mean == pytest.approx((100, 25, 0))
    assert backbone.pixel_std == pytest.approx((50, 25, 20))
    source = pretrained_source("pretrained", name)
    assert len(source.arrays) == len(backbone.weights)
    kernel = source.arrays["backbone.bottom_up.conv1_conv.kernel"]
    np.testing.assert_array_equal(kernel, network.get_layer("conv1_conv").kernel)
    assert source.expects["pixel_std"] == pytest.approx((50, 25, 20))
    assert is_pretrained(str(tmp_path / "preset"), "keras_hub/resnet_18_imagenet")


def test_presets_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no preset 'dinov2_smal'.*did you mean dinov2_small"):
        make_keras_hub("dinov2_smal", "frozen_affine", 2)
    with pytest.raises(ConfigError, match=r"must be the folder of a preset .* model.weights.h5"):
        make_keras_hub(str(tmp_path), "frozen_affine", 2)

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub.models.Backbone, "from_preset", offline)
    where = "kaggle.com/models/keras/.*mit_b3_ade20k_512.* and name that: .*no network"
    with pytest.raises(WeightsError, match=where):
        make_keras_hub("mit_b3_ade20k_512", "frozen_affine", 2)
    with pytest.raises(WeightsError, match=r"kaggle\.com/models/keras/dinov2"):
        pretrained_source("pretrained", "keras_hub/dinov2_small")


def test_what_is_no_pyramid_is_refused():
    vit = hub.models.ViTBackbone((32, 32, 3), 16, 1, 2, 8, 16)
    with pytest.raises(ConfigError, match="ViTBackbone of KerasHub cannot be a backbone"):
        from_instance(vit, "frozen_affine", 0, 0.0)
    with pytest.raises(ConfigError, match="`drop_path` must be 0 with ResNetBackbone"):
        from_instance(tiny_resnet(), "frozen_affine", 0, 0.1)
