"""What a run says before its first step, and where a step does not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import TrainConfig
from tf_panoptic_fpn.errors import TrainingError
from tf_panoptic_fpn.inference.devices import limit_gpu_memory
from tf_panoptic_fpn.training.first_lines import first_lines
from tf_panoptic_fpn.training.out_of_memory import explaining_memory


@pytest.fixture
def model():
    layers = [keras.Input((10,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    return keras.Sequential(layers)


def test_first_lines(model):
    settings = TrainConfig(steps=30, batch_size=4, precision="mixed_bfloat16")
    devices = ["/job:localhost/replica:0/task:0/device:CPU:0"]
    lines = first_lines(settings, model, devices * 2, num_images=50, start=10).splitlines()
    assert [line.split()[0] for line in lines] == [
        "versions",
        "devices",
        "parameters",
        "images",
        "steps",
    ]
    assert f"tensorflow {tf.__version__}, keras {keras.__version__}" in lines[0]
    assert "2 x CPU, " in lines[1]
    assert lines[1].endswith("mixed_bfloat16")
    assert "60, of which 52 are trained" in lines[2]
    assert "50; 12.5 steps of 4 an epoch" in lines[3]
    assert "10 of 30 done, 2.4 epochs in all" in lines[4]


def test_a_step_that_does_not_fit(model):
    settings = TrainConfig(batch_size=8, accumulate=2)
    batch = {
        schema.IMAGES: np.zeros([4, 64, 96, 3], "float32"),
        schema.GT_MASKS: tf.zeros([4, 100, 112, 112], tf.uint8),
    }
    with (
        pytest.raises(TrainingError, match="does not fit into memory") as caught,
        explaining_memory(settings, model, batch),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "a page")
    for text in ("take 0.00 MB", "100 masks an image 5.02 MB", "the pictures 0.15 MB"):
        assert text in str(caught.value)
    assert "2 image(s) of 64 x 96 at once" in str(caught.value)


def test_other_errors_pass(model):
    with pytest.raises(tf.errors.InvalidArgumentError), explaining_memory(TrainConfig(), model, {}):
        raise tf.errors.InvalidArgumentError(None, None, "another")


def test_memory_of_gpus(monkeypatch):
    grown, limited = [], []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu0", "gpu1"])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on))
    )
    monkeypatch.setattr(
        tf.config,
        "set_logical_device_configuration",
        lambda gpu, devices: limited.append((gpu, devices[0].memory_limit)),
    )
    limit_gpu_memory("all")
    assert (grown, limited) == ([], [])
    limit_gpu_memory("growth")
    assert grown == [("gpu0", True), ("gpu1", True)]
    limit_gpu_memory(4096)
    assert limited == [("gpu0", 4096), ("gpu1", 4096)]
