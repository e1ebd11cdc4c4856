"""What the commands say where Keras is told to use another backend."""

import pytest

from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_answered_in_one_line(monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(ConfigError, match=f"`KERAS_BACKEND` must be unset.*'{backend}'$"):
        import_tensorflow()
