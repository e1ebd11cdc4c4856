"""Two worker processes on this machine against one, and their ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROOT, TINY, metrics, weights
from float64 import float64
from small_model import short_resnets

# Of a cluster without GPUs TensorFlow takes one device a worker; here it is given two.
TRAIN = """
import sys
sys.path.append("tests")
import keras
import tensorflow as tf
from small_model import short_resnets
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.training.loop import train
keras.config.set_floatx("float64")
short_resnets().start()
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # half the time
devices = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
CollectiveAllReduceExtended._initialize_local_devices = lambda self, resolver, worker: (
    [f"{worker}/device:CPU:{i}" for i in range(devices)], "CPU"
)
config = load_config(sys.argv[2], sys.argv[4:])
exit_on_error(lambda: train(config, sys.argv[3]))
"""
SETTINGS = ["train.batch_size=8", "train.deterministic=false", "data.shapes.train_images=12"]


def start(workdir, devices, settings, environment=()):
    command = [sys.executable, "-c", TRAIN, str(devices), TINY, str(workdir), *SETTINGS, *settings]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **dict(environment)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=pipe, text=True)


def start_two(workdir, devices=1, settings=((), ())):
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("localhost", 0))
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    workers = []
    for index, each in enumerate(settings):
        task = {"type": "worker", "index": index}
        text = json.dumps({"cluster": {"worker": addresses}, "task": task})
        workers.append(start(workdir, devices, each, {"TF_CONFIG": text}))
    return workers


def ends(process, timeout=900):
    """Its exit status and the last line of its stderr."""
    _, stderr = process.communicate(timeout=timeout)
    return process.returncode, stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_two_workers_of_two_devices_train_as_one_device(tmp_path):
    """The workers' images differ in size, so that their shares have different canvases.

    They share a validation, whose figures are those of one.
    """
    steps = ["train.steps=3", "evaluate.every=3"]
    workers = start_two(tmp_path / "two", 2, [steps, steps])
    assert [ends(worker)[0] for worker in workers] == [0, 0]
    assert ends(start(tmp_path / "one", 1, steps))[0] == 0
    pairs = list(zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True))
    one, two = next(pair for pair in pairs if "validation" in pair[0])
    pairs.remove((one, two))
    assert one["validation"].keys() == two["validation"].keys()
    for name, value in one["validation"].items():
        if name != "seconds_per_image":
            np.testing.assert_allclose(value, two["validation"][name], rtol=1e-9, err_msg=name)
    assert not (tmp_path / "two" / "shares").exists()
    for one, two in pairs:
        for name, value in one["loss"].items():
            np.testing.assert_allclose(value, two["loss"][name], rtol=1e-12, err_msg=name)
    with float64(), short_resnets():
        expected, received = (weights(tmp_path / name) for name in ("one", "two"))
    for path, value in received.items():
        error = np.linalg.norm(value - expected[path])
        # Biases that start at 0 have hardly moved yet.
        assert error <= 1e-12 * np.linalg.norm(expected[path]) + 1e-15 * value.size**0.5, path


@pytest.mark.slow
def test_the_end_of_a_worker_ends_the_other_with_one_line(tmp_path):
    settings = ["train.steps=10000", "model.tasks=[semantic]"]  # sooner traced
    first, second = start_two(tmp_path, settings=[settings] * 2)
    deadline = time.monotonic() + 600
    while not (tmp_path / "metrics.jsonl").exists() or not metrics(tmp_path):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.2)
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    status, line = ends(first)
    assert time.monotonic() - killed < 60
    assert status == 2
    assert line.startswith("error: worker 0 of 2 stops: ")
    assert "has ended; its own log says why. Start all again" in line
    second.communicate()


@pytest.mark.slow
def test_a_worker_with_another_configuration_ends_both(tmp_path):
    workers = start_two(tmp_path, settings=[["train.seed=1"], ["train.seed=2"]])
    for index, worker in enumerate(workers):
        status, line = ends(worker)
        assert status == 2
        assert line.startswith("error: worker 1 (localhost:")
        assert "has another `train.seed` than worker 0" in line
        assert line.endswith(f"Received by worker {index}: {index + 1}")
