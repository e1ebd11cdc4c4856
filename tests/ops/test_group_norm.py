"""`keras.layers.GroupNormalization` stands for that of TensorFlow Addons; they must be equal."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.backbones.conv_norm import GroupNorm


@pytest.mark.parametrize("case", ["a", "b"])
def test_equals_tensorflow_addons(goldens_dir, tf, case):
    # Made with tfa.layers.GroupNormalization; the gradient is that of sum(y**2 * linspace(0, 1)).
    golden = np.load(goldens_dir / "tfa_group_norm.npz")
    x = tf.constant(golden[f"{case}_x"])
    layer = keras.layers.GroupNormalization(
        groups=int(golden[f"{case}_groups"]), axis=-1, epsilon=float(golden[f"{case}_epsilon"])
    )
    layer.build(x.shape)
    layer.gamma.assign(golden[f"{case}_gamma"])
    layer.beta.assign(golden[f"{case}_beta"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        weights = tf.reshape(tf.linspace(0.0, 1.0, tf.size(y)), y.shape)
        loss = tf.reduce_sum(y**2 * weights)
    # float32 sums over a group, of values up to 5.
    np.testing.assert_allclose(y, golden[f"{case}_y"], atol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, x), golden[f"{case}_dx"], atol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
def test_epsilon_by_hand(epsilon):
    # One group of deviation 0.01: the epsilon decides the result.
    x = np.float32([0.0, 0.02] * 8).reshape(1, 2, 2, 4)
    layer = keras.layers.GroupNormalization(groups=1, axis=-1, epsilon=epsilon)
    expected = (x - 0.01) / np.sqrt(1e-4 + epsilon)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=1e-4, atol=1e-6)


def test_the_models_layer_equals_keras_in_float64(tf):
    """Outputs and gradients; the groups are of two channels, the images differ in their means."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal([[[[2.0]]], [[[-30.0]]]], 1, (2, 5, 7, 8)))
    upstream = tf.constant(rng.normal(size=x.shape))
    results = []
    for make in (GroupNorm, keras.layers.GroupNormalization):
        layer = make(groups=4, epsilon=1e-5, dtype="float64")
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(-1, 2, 8))
        layer.beta.assign(np.linspace(3, -1, 8))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        sources = [x, layer.gamma.value, layer.beta.value]
        results.append([y, *tape.gradient(y, sources, output_gradients=upstream)])
    for received, expected in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-10, atol=1e-10)
