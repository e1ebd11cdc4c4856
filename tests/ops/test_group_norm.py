"""`keras.layers.GroupNormalization` stands for that of TensorFlow Addons; they must be equal."""

import keras
import numpy as np
import pytest
from keras import ops


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
