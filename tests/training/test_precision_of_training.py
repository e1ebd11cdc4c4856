"""Loss scale, average of the weights, half precision and rematerialisation of the train step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import run as run_program
from small_model import make_batch, make_tiny_model
from test_step import distribute

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import TrainConfig
from tf_panoptic_fpn.training.gradients import losses_and_gradients
from tf_panoptic_fpn.training.loss_scale import LossScale
from tf_panoptic_fpn.training.optimizer import SGD, AdamW
from tf_panoptic_fpn.training.precision import layer_dtype, rematerialization
from tf_panoptic_fpn.training.step import make_train_step
from tf_panoptic_fpn.training.weight_average import WeightAverage

pytestmark = pytest.mark.usefixtures("short_backbones")


def test_the_scale_halves_and_doubles():
    scale = LossScale(initial=8.0, growth_steps=3)
    seen = []
    for finite in (1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0):
        (scale.after_a_finite_step if finite else scale.after_a_skipped_step)()
        seen.append(float(scale.value))
    assert seen == [8, 8, 16, 16, 8, 8, 8, 4, 4, 4, 8, 4, 2, 1, 1, 1]


def test_the_average_by_hand():
    layer = keras.layers.Dense(2)
    layer.build((None, 1))
    model = keras.Sequential([layer, keras.layers.BatchNormalization()])
    model.build((None, 1))
    average = WeightAverage(model, 0.6)
    moving = model.layers[1].moving_mean
    values = [3.0, 5.0, 10.0, 0.0, 1.0]
    # 3; (3 + 5) / 2; from then on .6 of the average and .4 of the weights.
    expected = [3.0, 4.0, 0.6 * 4 + 4, 0.6 * 6.4, 0.6 * 3.84 + 0.4]
    for value, mean in zip(values, expected, strict=True):
        layer.kernel.assign([[value, -value]])
        moving.assign([10 * value, 0])
        average.update()
        with average.in_use():
            np.testing.assert_allclose(layer.kernel, [[mean, -mean]], rtol=1e-6)
            np.testing.assert_allclose(moving, [10 * mean, 0], rtol=1e-6)
        np.testing.assert_array_equal(layer.kernel, [[value, -value]])
    assert len(average.averages) == 6  # kernel, bias, gamma, beta, mean, variance


def start(devices, precision="float32", algorithm=SGD, **options):
    """A model, its train step, loss scale, average and optimizer on the given devices."""
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        model = make_tiny_model(dtype=precision) if precision != "float32" else make_tiny_model()
        options_of = {"momentum": 0.9} if algorithm is SGD else {}
        optimizer = algorithm(1e-4, weight_decay=1e-4, reduces_gradients=False, **options_of)
        optimizer.build(model.trainable_variables)
        scale, average = LossScale(initial=64.0), WeightAverage(model, 0.5)
    step = make_train_step(
        model, optimizer, strategy, loss_scale=scale, average=average, clip_norm=1.0, **options
    )
    return strategy, model, optimizer, scale, average, step


def state(model, optimizer, average):
    variables = [*model.weights, *optimizer.variables]
    return [v.numpy() for v in variables] + [v.numpy() for v in average.averages]


@pytest.fixture(scope="module")
def half():
    """Two finite steps of AdamW in float16, and one that is not: what was before and after each."""
    strategy, model, optimizer, scale, average, step = start(["CPU:0"], "mixed_float16", AdamW)
    batch = make_batch(1, (64, 96))
    rows, states, weights = [], [state(model, optimizer, average)], []
    for image in (batch[schema.IMAGES], batch[schema.IMAGES], np.nan * batch[schema.IMAGES]):
        rows.append(step(distribute(strategy, {**batch, schema.IMAGES: image})))
        states.append(state(model, optimizer, average))
        weights.append([v.numpy() for v in model.trainable_variables])
    return model, optimizer, scale, average, rows, states, weights


def test_a_step_in_float16_that_is_not_finite_changes_nothing(half):
    _, optimizer, scale, _, rows, states, _ = half
    assert [float(row["is_finite"]) for row in rows] == [1, 1, 0]
    assert int(optimizer.iterations.numpy()) == 2
    assert scale.value.numpy() == 32 and scale.finite_steps.numpy() == 0
    for a, b in zip(states[2], states[3], strict=True):
        np.testing.assert_array_equal(a, b)
    moved = sum((a != b).any() for a, b in zip(states[1], states[2], strict=True))
    assert moved > 0.9 * len(states[1])


def test_weights_losses_and_norm_are_float32_and_unscaled(half):
    model, _, _, average, rows, _, weights = half
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert {value.dtype for value in rows[0].values()} == {tf.float32}
    tf.config.run_functions_eagerly(True)  # sooner than a trace
    batch = {name: tf.constant(value) for name, value in make_batch(1, (64, 96)).items()}
    losses, gradients = losses_and_gradients(make_tiny_model(), 1)(batch)
    tf.config.run_functions_eagerly(False)
    norm = float(tf.linalg.global_norm(gradients))
    np.testing.assert_allclose(float(rows[0]["gradient_norm"]), norm, rtol=0.02)
    np.testing.assert_allclose(float(rows[0]["semantic"]), float(losses["semantic"]), rtol=1e-3)
    for a, first, second in zip(average.averages, *weights[:2], strict=False):
        np.testing.assert_allclose(a.numpy(), (first + second) / 2, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_infinity_on_one_replica_is_skipped_by_all():
    folders = ["tests", "tests/training"]
    program = f"import sys; sys.path[:0] = {folders}; import conftest; "
    program += "import test_precision_of_training as t; t.infinity_on_one_replica()"
    run_program("-c", program)


def infinity_on_one_replica():
    """Infinity in the second image, so on the second replica; then a good step."""
    devices = ["CPU:0", "CPU:1"]
    strategy, model, optimizer, scale, average, step = start(devices, "mixed_float16")
    batch = make_batch(2, (64, 96))
    bad = batch[schema.IMAGES].copy()
    bad[1, 5, 5] = np.inf

    def on_all():
        """Every replica's own copy of all that a step may change."""
        variables = [*model.weights, *optimizer.variables]
        variables = [v.value for v in variables] + list(average.averages)
        copies = [strategy.experimental_local_results(v) for v in variables]
        return [[v.numpy() for v in replicas] for replicas in zip(*copies, strict=True)]

    before = on_all()
    row = step(distribute(strategy, {**batch, schema.IMAGES: bad}))
    assert float(row["is_finite"]) == 0
    scales = [float(v) for v in strategy.experimental_local_results(scale.value)]
    assert scales == [32, 32]
    for replica, values in enumerate(on_all()):
        for a, b in zip(before[replica], values, strict=True):
            np.testing.assert_array_equal(a, b)
    assert float(step(distribute(strategy, batch))["is_finite"]) == 1
    first, second = on_all()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum((a != b).any() for a, b in zip(before[0], first, strict=True)) > 0.9 * len(first)


@pytest.mark.slow
def test_rematerialisation_changes_nothing():
    batch = make_batch(1, (64, 96))
    rows = []
    for rematerialize in (False, True):
        settings = TrainConfig(rematerialize=rematerialize)
        assert layer_dtype(settings) is None
        with rematerialization(settings):
            strategy, _, _, _, _, step = start(["CPU:0"])
        rows.append(step(distribute(strategy, batch)))
    for name, value in rows[0].items():
        np.testing.assert_allclose(rows[1][name], value, rtol=1e-6, err_msg=name)
