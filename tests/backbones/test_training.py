"""Each family of backbones trains, and comes back from a file as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import convnext, mobilenet_v3
from small_model import TINY_OPTIONS, make_batch

from tf_panoptic_fpn import PanopticFPN, schema
from tf_panoptic_fpn.backbones.keras_hub import ARCHITECTURES

VIT = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "intermediate_dim": 64}
CSP = {
    "stem_filters": 8,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stackwise_depth": [1, 1, 1, 1, 1],
    "stackwise_strides": [2, 2, 2, 2, 2],
    "stackwise_num_filters": [8, 16, 16, 32, 32],
    "block_type": "dark_block",
    "stage_type": "csp",
    "stem_padding": "same",
    "block_ratio": [0.5],
}
HUB = {
    "CSPNetBackbone": CSP,
    "DenseNetBackbone": {"stackwise_num_repeats": [1, 1, 1, 1], "growth_rate": 8},
    "DINOV2Backbone": {
        **VIT,
        "patch_size": 14,
        "image_shape": (56, 56, 3),
        "position_embedding_shape": (56, 56, 3),
    },
    "DINOV3Backbone": {**VIT, "patch_size": 16, "image_shape": (64, 64, 3)},
    "ResNetBackbone": {
        **ARCHITECTURES["resnet_18_imagenet"][1],
        "stackwise_num_blocks": [1, 1, 1, 1],
    },
}


def small_convnext(weights, **options):
    """Its structure, one narrow block a stage."""
    return convnext.ConvNeXt(
        depths=[1, 1, 1, 1], projection_dims=[8, 8, 16, 16], weights=None, name="small", **options
    )


def small_mobilenet(weights, **options):
    """An inverted residual block a stage."""

    def stack(x, kernel, activation, se_ratio):
        for i, channels in enumerate((8, 8, 16, 16)):
            x = mobilenet_v3._inverted_res_block(
                x, 2, channels, kernel, 2, se_ratio, activation, i + 1
            )
        return x

    return mobilenet_v3.MobileNetV3(
        stack, 16, weights=None, model_type="small", name="small", **options
    )


APPLICATIONS = {"ConvNeXtTiny": small_convnext, "MobileNetV3Small": small_mobilenet}


def make_model(backbone, **changes):
    keras.utils.set_random_seed(0)
    if backbone in HUB:
        hub = pytest.importorskip("keras_hub", reason="pip install .[keras_hub]")
        backbone = getattr(hub.models, backbone)(**HUB[backbone])
    options = {"norm": "sync_batch_norm", "freeze_at": 0, "backbone": backbone}
    return PanopticFPN(**{**TINY_OPTIONS, "tasks": ("semantic",), **options, **changes})


def train(model, batch, steps, optimizer):
    """Losses of some steps."""
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            dense = model(batch, training=True)
            total = sum(model.weighted_losses(model.loss_terms(dense, batch)).values())
        gradients = tape.gradient(total, model.trainable_variables)
        missing = zip(model.trainable_variables, gradients, strict=True)
        assert not [v.path for v, gradient in missing if gradient is None]
        optimizer.apply(gradients, model.trainable_variables)
        return total

    return [float(step()) for _ in range(steps)]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [*HUB, *(f"keras_applications/{a}" for a in APPLICATIONS)])
def test_a_family_trains(backbone, tmp_path, monkeypatch):
    """20 steps; then its file gives the same."""
    for name, small in APPLICATIONS.items():
        monkeypatch.setattr(keras.applications, name, small)
    model = make_model(backbone)
    batch = {name: tf.constant(value) for name, value in make_batch(2, (64, 64)).items()}
    losses = train(model, batch, 20, keras.optimizers.Adam(1e-3))
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = batch[schema.IMAGES]
    logits = model(images)[schema.SEMANTIC_LOGITS]
    np.testing.assert_array_equal(loaded(images)[schema.SEMANTIC_LOGITS], logits)
