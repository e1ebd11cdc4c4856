"""TensorFlow keeps its memory on a CPU, unless told otherwise."""

import os
import subprocess
import sys

import pytest

CODE = "import os, tf_panoptic_fpn; print(os.environ['TF_CPU_ALLOCATOR_USE_BFC'])"


@pytest.mark.parametrize(("given", "kept"), [({}, "1"), ({"TF_CPU_ALLOCATOR_USE_BFC": "0"}, "0")])
def test_the_environment_has_the_last_word(given, kept):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPU_")}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(
        command, env={**environment, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == kept
