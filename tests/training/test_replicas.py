"""A run on two replicas against one on a single replica, in float64: rounding decides nothing."""

import numpy as np
import pytest
from command_line import TINY, metrics, run, weights
from float64 import float64
from small_model import short_resnets

TRAIN_TWICE = """
import sys
sys.path.append("tests")
import keras
import tensorflow as tf
from small_model import short_resnets
from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.training.loop import train
keras.config.set_floatx("float64")
short_resnets().start()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # half the time
for replicas in (1, 2):
    settings = [*sys.argv[3:], f"train.replicas={replicas}"]
    config = load_config(sys.argv[1], settings)
    optimizer = config.optimizer.model_copy(update={"warmup_steps": 50})  # of the first 3
    train(config.model_copy(update={"optimizer": optimizer}), f"{sys.argv[2]}/{replicas}")
"""


@pytest.mark.slow
def test_two_replicas_train_as_one(tmp_path):
    settings = ["train.batch_size=4", "train.steps=3"]
    run("-c", TRAIN_TWICE, TINY, tmp_path, *settings)
    for one, two in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        for name, value in one["loss"].items():
            np.testing.assert_allclose(value, two["loss"][name], rtol=1e-12, err_msg=name)
    with float64(), short_resnets():
        expected, received = (weights(tmp_path / replicas) for replicas in "12")
    for path, value in received.items():
        assert value.dtype == "float64"
        error = np.linalg.norm(value - expected[path])
        # Biases that start at 0 have hardly moved yet.
        assert error <= 1e-12 * np.linalg.norm(expected[path]) + 1e-15 * value.size**0.5, path
