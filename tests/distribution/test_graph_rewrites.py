import pytest
import tensorflow as tf

from tf_panoptic_fpn.distribution.graph_rewrites import OFF, without_rewrites


def is_off():
    return tf.config.optimizer.get_experimental_options().get(OFF, False)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("device, off", [("/device:CPU:0", True), ("/device:GPU:1", False)])
def test_off_on_processors_alone_and_as_before_afterwards(before, device, off):
    usual = is_off()
    tf.config.optimizer.set_experimental_options({OFF: before})
    try:
        with pytest.raises(KeyError), without_rewrites(["/device:CPU:0", device]):
            assert is_off() == (off or before)
            raise KeyError
        assert is_off() == before
    finally:
        tf.config.optimizer.set_experimental_options({OFF: usual})
