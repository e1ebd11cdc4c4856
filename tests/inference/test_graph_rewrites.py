import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.inference.graph_rewrites import OFF, without_rewrites
from tf_panoptic_fpn.inference.predictor import Predictor


def is_off():
    return tf.config.optimizer.get_experimental_options().get(OFF, False)


@pytest.fixture(params=[False, True])
def before(request):
    usual = is_off()
    tf.config.optimizer.set_experimental_options({OFF: request.param})
    yield request.param
    tf.config.optimizer.set_experimental_options({OFF: usual})


@pytest.mark.parametrize("gpus, off", [([], True), (["GPU:0"], False)])
def test_off_on_processors_alone_and_as_before_afterwards(monkeypatch, before, gpus, off):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    with pytest.raises(KeyError), without_rewrites():
        assert is_off() == (off or before)
        raise KeyError
    assert is_off() == before


def test_off_until_the_last_thread_is_out(before):
    """Threads leave in another order than they came."""
    first, second = without_rewrites(), without_rewrites()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_off()
    second.__exit__(None, None, None)
    assert is_off() == before


def test_a_predictor_runs_without_them(monkeypatch, before):
    predictor = Predictor.__new__(Predictor)
    predictor.thresholds = None
    predictor.traced = lambda images, thresholds: {"off": tf.constant([is_off()])}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert predictor.run(np.zeros([1, 2, 2, 3], np.uint8)) == [{"off": True}]
