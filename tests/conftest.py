"""Fixtures shared by all tests."""

import os
import pathlib

import pytest
from tiny_dataset import TinyDataset

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# XLA compiles sooner, to slower code.
COMPILE_SOON = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", COMPILE_SOON)

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import tensorflow as tf

    # Two replicas for the tests of distribution; must come before anything runs.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # Half of the first run of a graph is Grappler's. The runs in processes of their own have it.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def samples():
    """Folder of the real sample images; a test that asks for it is skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("PANOPTIC_SAMPLES", ROOT.parent / "shared" / "samples"))
    if not folder.is_dir():
        pytest.skip(f"no sample data at {folder} (set PANOPTIC_SAMPLES)")
    return folder


@pytest.fixture(scope="session")
def goldens_dir():
    """Folder of the reference numbers."""
    return ROOT / "tests" / "goldens"


@pytest.fixture(scope="module")
def short_backbones():
    """Of a module that asks for it, every ResNet-18 or 50 that is made or loaded is short."""
    from small_model import short_resnets

    with short_resnets():
        yield


@pytest.fixture
def tiny(tmp_path):
    """An empty `TinyDataset`."""
    return TinyDataset(tmp_path)
