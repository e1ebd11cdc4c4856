"""The optimizer and its schedule against PyTorch's arithmetic and detectron2's numbers."""

import keras
import numpy as np
import pytest

from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.training.optimizer import SGD, AdamW, build_optimizer
from tf_panoptic_fpn.training.schedule import (
    WarmupCosineDecay,
    WarmupPolynomialDecay,
    WarmupStepDecay,
    build_schedule,
)


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


def adamw(weight, gradients, rates, betas, decay, epsilon):
    """Loshchilov's algorithm 2, step by step."""
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        means, squares = mean / (1 - betas[0] ** t), square / (1 - betas[1] ** t)
        weight = weight - rate * (means / (np.sqrt(squares) + epsilon) + decay * weight)
    return weight


def make_parts():
    """A weight of the backbone, one of a head, and a scale of each."""
    inputs = keras.Input((4,))
    backbone = keras.Sequential(
        [keras.layers.Dense(3, use_bias=False), keras.layers.LayerNormalization(center=False)],
        name="backbone",
    )
    head = [
        keras.layers.Dense(3, use_bias=False, name="head"),
        keras.layers.LayerNormalization(center=False, name="norm"),
    ]
    x = backbone(inputs)
    for layer in head:
        x = layer(x)
    variables = keras.Model(inputs, x).trainable_variables
    factors = [0.1 if v.path.startswith("backbone/") else 1.0 for v in variables]
    assert factors == [0.1, 0.1, 1.0, 1.0]
    return variables, factors, [0.2, 0.0, 0.2, 0.0]


@pytest.mark.parametrize("algorithm", ["sgd", "adamw"])
def test_the_backbone_has_its_own_rate_and_norms_do_not_decay(algorithm):
    variables, factors, decays = make_parts()
    before = [v.numpy().astype(np.float64) for v in variables]
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=(4, *v.shape)).astype(np.float32) for v in variables]
    config = OptimizerConfig(
        algorithm=algorithm,
        learning_rate=0.3,
        momentum=0.8,
        weight_decay=0.2,
        backbone_lr_factor=0.1,
        warmup_steps=0,
        schedule="polynomial",
        power=1.0,
    )
    optimizer = build_optimizer(config, num_steps=5)
    for step in range(4):
        optimizer.apply([gradient[step] for gradient in gradients], variables)
    for i, variable in enumerate(variables):
        rates = [0.3 * factors[i] * left for left in (1.0, 0.8, 0.6, 0.4)]
        if algorithm == "sgd":
            expected = torch_sgd(before[i], gradients[i], rates, 0.8, decays[i])
        else:
            expected = adamw(before[i], gradients[i], rates, (0.8, 0.999), decays[i], 1e-8)
        # In float32 Adam's 1 - .999 has 6e-5 of rounding, and the step half of it.
        atol = 2e-5 if algorithm == "adamw" else 2e-6
        np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=atol, err_msg=variable.path)


def test_keras_momentum_with_a_rate_for_the_backbone():
    variables, factors, decays = make_parts()
    before = [v.numpy().astype(np.float64) for v in variables]
    gradients = [np.ones((3, *v.shape), np.float32) for v in variables]
    optimizer = SGD(0.3, 0.8, 0.2, "keras", backbone_lr_factor=0.1)
    for step in range(3):
        optimizer.apply([gradient[step] for gradient in gradients], variables)
    for i, variable in enumerate(variables):
        expected = keras_sgd(before[i], gradients[i], [0.3 * factors[i]] * 3, 0.8, decays[i])
        np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=2e-6)


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
    assert int(optimizer.iterations.numpy()) == 1


@pytest.mark.parametrize(("key", "drops"), [("1x", (60000, 80000)), ("3x", (210000, 250000))])
def test_schedule_equals_detectron2(goldens_dir, key, drops):
    units = np.load(goldens_dir / "units.npz")
    schedule = WarmupStepDecay(0.02, 1000, 0.001, drops)
    rates = [float(schedule(step)) for step in units[f"lr_iters_{key}"]]
    np.testing.assert_allclose(rates, units[f"lr_{key}"], rtol=1e-5)


def test_cosine_and_polynomial_by_hand():
    common = {"learning_rate": 0.4, "warmup_steps": 4, "warmup_factor": 0.5, "end_factor": 0.2}
    cosine = build_schedule(OptimizerConfig(schedule="cosine", **common), 12)
    # Warm-up .5, .625, .75, .875, then 1; the cosine of 0, pi/4, pi/2, pi.
    rates = [float(cosine(step)) for step in (0, 3, 6, 12, 20)]
    expected = [0.2, 0.35 * (0.6 + 0.4 * 0.5**0.5), 0.4 * 0.6, 0.4 * 0.2, 0.4 * 0.2]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    polynomial = build_schedule(OptimizerConfig(schedule="polynomial", power=2.0, **common), 12)
    rates = [float(polynomial(step)) for step in (0, 3, 6, 12, 20)]
    expected = [0.2, 0.35 * (0.2 + 0.8 * 0.5625), 0.4 * (0.2 + 0.8 * 0.25), 0.08, 0.08]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_configs_survive():
    for cls, own in ((WarmupCosineDecay, (9, 0.1)), (WarmupPolynomialDecay, (9, 0.1, 0.7))):
        config = cls(0.3, 7, 0.2, *own).get_config()
        assert cls.from_config(config).get_config() == config
        assert tuple(config.values()) == (0.3, 7, 0.2, *own)
    decoupled = AdamW(0.3, 0.2, reduces_gradients=False, backbone_lr_factor=0.4, beta_1=0.7)
    config = AdamW.from_config(decoupled.get_config()).get_config()
    names = ("weight_decay", "reduces_gradients", "backbone_lr_factor", "beta_1")
    assert tuple(config[name] for name in names) == (0.2, False, 0.4, 0.7)
    schedule = WarmupStepDecay(0.3, 7, 0.2, (5, 6), 0.4)
    assert WarmupStepDecay.from_config(schedule.get_config()).get_config() == schedule.get_config()
    optimizer = SGD(0.3, 0.5, weight_decay=0.2, momentum_style="keras", reduces_gradients=False)
    config = SGD.from_config(optimizer.get_config()).get_config()
    names = ("momentum", "weight_decay", "momentum_style", "reduces_gradients")
    assert tuple(config[name] for name in names) == (0.5, 0.2, "keras", False)


def test_an_unknown_style_is_an_error():
    with pytest.raises(ValueError, match="`momentum_style` must be one of"):
        SGD(0.1, momentum_style="nesterov")
