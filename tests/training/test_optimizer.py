"""The optimizer and its schedule against PyTorch's arithmetic and detectron2's numbers."""

import keras
import numpy as np
import pytest

from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.training.schedule import WarmupStepDecay


def torch_sgd(weight, gradients, rates, momentum, decay):
    """PyTorch's update, step by step."""
    velocity = np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + gradient + decay * weight
        weight = weight - rate * velocity
    return weight


def keras_sgd(weight, gradients, rates, momentum, decay):
    """Keras' update, step by step."""
    velocity = np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity - rate * (gradient + decay * weight)
        weight = weight + velocity
    return weight


@pytest.mark.parametrize(("style", "reference"), [("torch", torch_sgd), ("keras", keras_sgd)])
def test_momentum_style_across_a_drop_of_the_rate(style, reference):
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    start = layer.kernel.numpy()
    gradients = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    schedule = WarmupStepDecay(0.5, drop_steps=(3,))
    optimizer = SGD(schedule, momentum=0.9, weight_decay=0.1, momentum_style=style)
    for gradient in gradients:
        optimizer.apply([gradient], [layer.kernel])
    expected = reference(start, gradients, [0.5] * 3 + [0.05] * 3, 0.9, 0.1)
    np.testing.assert_allclose(layer.kernel, expected, rtol=1e-6, atol=1e-6)


def test_normalisation_does_not_decay_and_biases_do():
    norm = keras.layers.GroupNormalization(groups=1)
    norm.build((None, 2))
    dense = keras.layers.Dense(2, bias_initializer="ones")
    dense.build((None, 2))
    variables = [norm.gamma, dense.bias]
    optimizer = SGD(0.5, momentum=0.0, weight_decay=0.1)
    optimizer.apply([np.zeros(2, np.float32)] * 2, variables)
    np.testing.assert_array_equal(norm.gamma, [1, 1])
    np.testing.assert_allclose(dense.bias, [0.95, 0.95], rtol=1e-6)


def test_gradients_that_are_not_finite_change_nothing():
    layer = keras.layers.Dense(2)
    layer.build((None, 1))
    optimizer = SGD(0.5, momentum=0.9, weight_decay=0.1)
    optimizer.apply([np.ones((1, 2), np.float32)], [layer.kernel])
    before = layer.kernel.numpy(), optimizer.velocities[0].numpy()
    optimizer.apply([np.array([[np.nan, np.inf]], np.float32)], [layer.kernel])
    np.testing.assert_array_equal(layer.kernel, before[0])
    np.testing.assert_array_equal(optimizer.velocities[0], before[1])


@pytest.mark.parametrize(("key", "drops"), [("1x", (60000, 80000)), ("3x", (210000, 250000))])
def test_schedule_equals_detectron2(goldens_dir, key, drops):
    units = np.load(goldens_dir / "units.npz")
    schedule = WarmupStepDecay(0.02, 1000, 0.001, drops)
    rates = [float(schedule(step)) for step in units[f"lr_iters_{key}"]]
    np.testing.assert_allclose(rates, units[f"lr_{key}"], rtol=1e-5)


def test_configs_survive():
    schedule = WarmupStepDecay(0.3, 7, 0.2, (5, 6), 0.4)
    assert WarmupStepDecay.from_config(schedule.get_config()).get_config() == schedule.get_config()
    optimizer = SGD(0.3, 0.5, weight_decay=0.2, momentum_style="keras", reduces_gradients=False)
    config = SGD.from_config(optimizer.get_config()).get_config()
    names = ("momentum", "weight_decay", "momentum_style", "reduces_gradients")
    assert tuple(config[name] for name in names) == (0.5, 0.2, "keras", False)


def test_an_unknown_style_is_an_error():
    with pytest.raises(ValueError, match="`momentum_style` must be one of"):
        SGD(0.1, momentum_style="nesterov")
