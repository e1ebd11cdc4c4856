"""A run on two replicas against one on a single replica."""

import numpy as np
import pytest
from command_line import TINY, metrics, run, weights

TRAIN_TWICE = """
import sys
import tensorflow as tf
from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.training.loop import train
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
    # A ReLU on the brink turns with the last bit of a sum. In an image this small that moves the
    # gradient by 4e-5, so the first steps are kept as short as those of a real warm-up.
    settings = ["train.batch_size=4", "train.steps=3"]
    run("-c", TRAIN_TWICE, TINY, tmp_path, *settings)
    for one, two in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        for name, value in one["loss"].items():
            np.testing.assert_allclose(value, two["loss"][name], rtol=1e-5, err_msg=name)
    expected = weights(tmp_path / "1")
    for path, value in weights(tmp_path / "2").items():
        error = np.linalg.norm(value - expected[path])
        # Biases that start at 0 have hardly moved yet.
        assert error <= 1e-5 * np.linalg.norm(expected[path]) + 1e-8 * value.size**0.5, path
