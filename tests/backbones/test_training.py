"""Each family of backbones trains, and comes back from a file as it was."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import ROOT
from keras.src.applications import convnext, mobilenet_v3
from small_model import TINY_OPTIONS, make_batch

from tf_panoptic_fpn import PanopticFPN, schema

# Classes of KerasHub and what is changed of the arguments that the benchmarks have for them.
HUB = {
    "CSPNetBackbone": {},
    "DenseNetBackbone": {"stackwise_num_repeats": [1, 1, 1, 1]},
    "DINOV2Backbone": {"image_shape": (56, 56, 3), "position_embedding_shape": (56, 56, 3)},
    "DINOV3Backbone": {"image_shape": (64, 64, 3)},
    "ResNetBackbone": {"stackwise_num_blocks": [1, 1, 1, 1]},
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
        arguments = {**importlib.import_module("hub_presets").HUB[backbone], **HUB[backbone]}
        backbone = getattr(hub.models, backbone)(**arguments)
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
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
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
