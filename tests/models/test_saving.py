"""Configurations, clones and files of the model and its layers."""

import zlib

import keras
import numpy as np
import pytest
from small_model import make_tiny_model

from tf_panoptic_fpn import load_model

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return make_tiny_model()


def test_every_layer_is_made_again_from_its_config(model):
    assert len(model.layers) > 8
    for layer in model._flatten_layers(include_self=False):
        config = layer.get_config()
        assert type(layer).from_config(config).get_config() == config, layer.path


def test_clone(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(
        [w for v, w in zip(model.weights, model.get_weights(), strict=True) if "seed" not in v.path]
    )
    sizes = np.array([[64, 96]], "int32")
    inputs = {"images": IMAGES, "image_sizes": sizes}
    expected, received = model(inputs), clone(inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)


def test_part_of_the_model_is_saved_and_loaded(model, tmp_path):
    part = keras.Model(model.inputs, model.get_layer("semantic_head").output)
    part.save(tmp_path / "part.keras")
    loaded = keras.models.load_model(tmp_path / "part.keras")
    values = {"images": IMAGES, "image_sizes": np.array([[64, 96]], "int32")}
    inputs = [values[tensor.name] for tensor in model.inputs]
    np.testing.assert_array_equal(loaded(inputs), part(inputs))


def test_file_of_version_0_1(goldens_dir):
    """Weights bit for bit, outputs within rounding. Each weight is a function of its path."""
    model = load_model(goldens_dir / "model_0_1.keras")
    for variable in model.trainable_variables:
        rng = np.random.default_rng(zlib.crc32(variable.path.encode()))
        expected = (rng.integers(-4, 5, variable.shape) / 16).astype("float32")
        np.testing.assert_array_equal(variable.numpy(), expected, err_msg=variable.path)
    expected = dict(np.load(goldens_dir / "model_0_1_outputs.npz"))
    outputs = {name: np.array(value) for name, value in model(IMAGES).items()}
    outputs["mask_means"] = outputs["mask_probs"].mean(axis=(2, 3))
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_channels_first_of_keras_json_changes_nothing(model):
    expected = model(IMAGES)
    keras.config.set_image_data_format("channels_first")
    try:
        other = make_tiny_model()
        other.set_weights(model.get_weights())
        received = other(IMAGES)
        dense = other(IMAGES, training=True)
    finally:
        keras.config.set_image_data_format("channels_last")
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)
    np.testing.assert_allclose(
        dense["semantic_logits"], expected["semantic_logits"], rtol=1e-4, atol=1e-4
    )
