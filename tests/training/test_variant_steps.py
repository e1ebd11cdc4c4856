"""Train steps of the variants: alternating losses, and batch norm over replicas."""

import concurrent.futures
import multiprocessing

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64 import float64
from small_model import make_batch

from tf_panoptic_fpn import PanopticFPN, schema
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.models.assembly import TASKS
from tf_panoptic_fpn.models.panoptic_fpn import FOREGROUND, LOSS_NAMES
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.training.step import alternate_steps, make_train_step

ALWAYS = {"total", "gradient_norm", "is_finite", "canvas_pixels"}


def make_model(norm="frozen_affine", tasks=TASKS):
    keras.utils.set_random_seed(0)
    return PanopticFPN(
        num_thing_classes=5,
        num_stuff_classes=4,
        tasks=tasks,
        backbone=ResNet(18, norm, freeze_at=2, stem_channels=8, width=8, name="backbone"),
        fpn_channels=16,
        semantic_channels=32,
        box_head_units=16,
        mask_head_channels=8,
        rpn_top_k_train=(30, 30),
        rpn_top_k_test=(20, 10),
        rpn_samples=16,
        rois_per_image=8,
        max_detections=5,
    )


def make_optimizer(model):
    # Without weight decay, a step leaves alone what no gradient reaches.
    optimizer = SGD(0.01, momentum=0.0, weight_decay=0.0, reduces_gradients=False)
    optimizer.build(model.trainable_variables)
    return optimizer


def changed_parts(model, before):
    return {
        variable.path.split("/")[0]
        for variable, value in zip(model.trainable_variables, before, strict=True)
        if (variable.numpy() != value).any()
    }


def test_alternating_steps_train_one_branch_each():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = make_model()
        optimizer = make_optimizer(model)
    steps = [make_train_step(model, optimizer, strategy, tasks=[task]) for task in TASKS]
    train_step = alternate_steps(steps, start=1)
    batch = {name: tf.constant(value) for name, value in make_batch(1, (64, 96)).items()}
    parts = {"instance": {"rpn_head", "box_head", "mask_head"}, "semantic": {"semantic_head"}}
    for task in ("semantic", "instance", "semantic"):
        before = [variable.numpy() for variable in model.trainable_variables]
        outputs = train_step(batch)
        counts = FOREGROUND if task == "instance" else ()
        assert set(outputs) == {*LOSS_NAMES[task], *counts, *ALWAYS}
        assert all(float(outputs[name]) >= 1 for name in counts)
        np.testing.assert_allclose(
            sum(float(outputs[name]) for name in LOSS_NAMES[task]), outputs["total"], rtol=1e-6
        )
        assert changed_parts(model, before) == {"backbone", "fpn", *parts[task]}


def test_turns_go_on_where_a_run_stopped():
    steps = [lambda batch: ("instance", batch), lambda batch: ("semantic", batch)]
    for start, expected in ((0, "instance"), (1, "semantic"), (6, "instance"), (7, "semantic")):
        train_step = alternate_steps(steps, start)
        assert [train_step(3)[0] for _ in range(3)][::2] == [expected, expected]
        assert train_step(5) == ("semantic" if expected == "instance" else "instance", 5)


def run_batch_norm(batches):
    """Trains Semantic FPN on one replica and on two; returns both's losses and variables."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configurations = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, configurations)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as conftest
    with float64():
        return [train_batch_norm(devices, batches) for devices in (["CPU:0"], ["CPU:0", "CPU:1"])]


def train_batch_norm(devices, batches):
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        model = make_model("sync_batch_norm", tasks=["semantic"])
        optimizer = make_optimizer(model)
    train_step = make_train_step(model, optimizer, strategy)
    losses = []
    for batch in batches:
        dataset = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[schema.IMAGES]))
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        distributed = strategy.experimental_distribute_dataset(dataset.with_options(options))
        losses.append(float(train_step(next(iter(distributed)))["total"]))
    return losses, {v.path: v.numpy() for v in model.weights}


@pytest.mark.slow
def test_batch_norm_over_two_replicas_equals_one():
    batches = [make_batch(2, (64, 96), seed=seed) for seed in range(3)]
    for batch in batches:
        batch[schema.IMAGES][1] *= 0.2  # the replicas' own statistics differ
    # In a new process: a second strategy over several replicas in one process numbers its
    # collectives as the first did, and TensorFlow takes them for the same.
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        one, two = pool.submit(run_batch_norm, batches).result()
    np.testing.assert_allclose(one[0], two[0], rtol=1e-9)
    moved = 0
    for path, value in one[1].items():
        if path.endswith(("moving_mean", "moving_variance")):
            np.testing.assert_allclose(two[1][path], value, rtol=1e-9, atol=1e-12, err_msg=path)
            initial = 0.0 if path.endswith("moving_mean") else 1.0
            frozen = "/stem/" in path or "/res2_" in path
            assert (value == initial).all() == frozen, path
            moved += not frozen
    # res3 to res5, of two blocks with two convolutions and one shortcut; mean and variance each.
    assert moved == 3 * 5 * 2


def test_a_step_that_is_not_finite_leaves_the_statistics():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = make_model("sync_batch_norm", tasks=["semantic"])
        optimizer = make_optimizer(model)
    train_step = make_train_step(model, optimizer, strategy)
    batch = make_batch(1, (64, 96))
    batch[schema.IMAGES][0, 5, 5] = np.nan
    before = [variable.numpy() for variable in model.weights]
    assert float(train_step({k: tf.constant(v) for k, v in batch.items()})["is_finite"]) == 0
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
