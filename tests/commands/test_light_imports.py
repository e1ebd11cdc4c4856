"""What the commands' import of TensorFlow leaves out, in processes of their own."""

import importlib.util
import json

import pytest
from command_line import run

from tf_panoptic_fpn.commands.light_imports import OPTIONAL

INSTALLED = [name for name in OPTIONAL if importlib.util.find_spec(name)]
AFTER = (
    "import gc, importlib, json, sys; "
    "from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow; "
    "import_tensorflow(); "
    "loaded = [name for name in sys.argv[1:] if name in sys.modules]; "
    "print(json.dumps([loaded, gc.isenabled(), gc.get_freeze_count()])); "
    "[importlib.import_module(name) for name in sys.argv[1:]]"
)


@pytest.mark.skipif(not INSTALLED, reason="none of the optional packages is installed")
def test_optional_packages_are_left_out_and_can_be_imported_later():
    loaded, collects, frozen = json.loads(run("-c", AFTER, *INSTALLED).stdout)
    assert loaded == []
    assert collects
    assert frozen > 100_000  # objects of modules, at which no collection looks again


def test_nothing_is_hidden_on_another_backend(monkeypatch):
    pytest.importorskip("jax", reason="pip install .[backends]")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    program = (
        "from tf_panoptic_fpn.commands.light_imports import light_imports\n"
        "with light_imports(): import keras\n"
        "print(keras.backend.backend())"
    )
    assert run("-c", program).stdout == "jax\n"


def test_the_backend_is_the_one_of_the_command(monkeypatch, tmp_path):
    """And not the one that `keras.json` names."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}), encoding="utf-8")
    program = (
        "from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow; "
        "import_tensorflow(); import keras; print(keras.backend.backend())"
    )
    assert run("-c", program).stdout == "tensorflow\n"
