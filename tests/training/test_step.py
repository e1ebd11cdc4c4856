"""The train step: any split of a batch gives the same step; NaN changes nothing."""

import numpy as np
import pytest
import tensorflow as tf
from command_line import run as run_program
from float64 import float64
from small_model import make_batch, make_tiny_model, short_resnets

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.training.step import make_train_step

LEARNING_RATE = 0.0001  # small: a ReLU on the brink turns with the last bit of a sum


def start(devices, **options):
    """Returns a fresh model, strategy and the train step on the given devices."""
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope(), short_resnets():
        model = make_tiny_model()
        optimizer = SGD(LEARNING_RATE, momentum=0.9, weight_decay=1e-4, reduces_gradients=False)
        optimizer.build(model.trainable_variables)
    return model, strategy, make_train_step(model, optimizer, strategy, **options)


def distribute(strategy, batch):
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[schema.IMAGES]))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return next(iter(strategy.experimental_distribute_dataset(dataset.with_options(options))))


def run(devices, batches, **options):
    """Trains on the batches; returns the losses of each step and the final weights."""
    model, strategy, train_step = start(devices, **options)
    losses = []
    for batch in batches:
        outputs = train_step(distribute(strategy, batch))
        losses.append({name: float(value) for name, value in outputs.items()})
    return losses, {v.path: v.numpy() for v in model.trainable_variables}


def assert_same(run_a, run_b, tolerance, norm_tolerance, moved):
    """Losses and weights within `tolerance`, relative, and `moved` for biases that start at 0."""
    losses_a, weights_a = run_a
    losses_b, weights_b = run_b
    for a, b in zip(losses_a, losses_b, strict=True):
        for name in a:
            rtol = norm_tolerance if name == "gradient_norm" else tolerance
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, err_msg=name)
    for path, a in weights_a.items():
        error = np.linalg.norm(a - weights_b[path])
        assert error <= tolerance * np.linalg.norm(a) + moved * a.size**0.5, path


@pytest.mark.slow
def test_two_replicas_equal_one():
    """In a process of its own: TensorFlow remembers the shapes that other strategies summed."""
    folders = ["tests", "tests/training"]
    program = f"import sys; sys.path[:0] = {folders}; import conftest, test_step; "
    run_program("-c", program + "test_step.compare_two_replicas_with_one()")


def compare_two_replicas_with_one():
    """Images with and without instances, so that the replicas' own counts differ.

    In float64: in float32 a ReLU on the brink turns with the last bit of a sum.
    """
    batches = [make_batch(4, seed=seed) for seed in range(5)]
    for batch in batches:
        batch[schema.GT_CLASSES][3] = -1
        batch[schema.SEMANTIC][2, :40] = schema.IGNORED
    with float64():
        one = run(["CPU:0"], batches)
        two = run(["CPU:0", "CPU:1"], batches)
    assert one[0][0]["total"] > 1
    assert all(value.dtype == "float64" for value in one[1].values())
    assert_same(one, two, 1e-12, norm_tolerance=1e-12, moved=1e-15)


@pytest.mark.slow
def test_xla_equals_the_plain_graph():
    batches = [make_batch(1, size=(64, 96))]
    with float64():
        plain = run(["CPU:0"], batches)
        compiled = run(["CPU:0"], batches, jit_compile=True)
    assert_same(plain, compiled, 1e-9, norm_tolerance=1e-9, moved=1e-12)


def test_losses_sum_to_the_total_and_clipping_bounds_the_step():
    batch = make_batch(2)
    model, strategy, train_step = start(["CPU:0"], clip_norm=0.5)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    outputs = {k: float(v) for k, v in train_step(distribute(strategy, batch)).items()}
    names = ("rpn_class", "rpn_box", "class", "box", "mask", "semantic")
    np.testing.assert_allclose(sum(outputs[name] for name in names), outputs["total"], rtol=1e-6)
    assert outputs["gradient_norm"] > 0.5
    moved = [v.numpy() - before[v.path] for v in model.trainable_variables]
    moved = np.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in moved))
    weights = np.sqrt(sum((w.astype(np.float64) ** 2).sum() for w in before.values()))
    # lr x (the clipped gradient + the decay of the weights).
    assert LEARNING_RATE * (0.5 - 1e-4 * weights) <= moved <= LEARNING_RATE * (0.5 + 1e-4 * weights)

    batch[schema.IMAGES][0, 5, 5] = np.nan
    before = [v.numpy() for v in model.trainable_variables]
    assert float(train_step(distribute(strategy, batch))["is_finite"]) == 0
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_batch_without_instances_or_labels():
    batch = make_batch(2)
    batch[schema.GT_CLASSES][:] = -1
    batch[schema.SEMANTIC][:] = schema.IGNORED
    _, strategy, train_step = start(["CPU:0"])
    outputs = {k: float(v) for k, v in train_step(distribute(strategy, batch)).items()}
    assert outputs["mask"] == outputs["box"] == outputs["rpn_box"] == outputs["semantic"] == 0
    assert outputs["class"] > 0
    assert outputs["rpn_class"] > 0
    assert outputs["is_finite"] == 1
