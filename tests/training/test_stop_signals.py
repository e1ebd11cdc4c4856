"""Signals that arrive, in a process that they may end."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from tf_panoptic_fpn.errors import StoppedBySignalError
from tf_panoptic_fpn.training.stop_signals import StopSignals

number = int(sys.argv[1])
signals = StopSignals()
with signals.caught():
    signals.check()
    os.kill(os.getpid(), number)
    try:
        signals.check()
    except StoppedBySignalError as error:
        print(error, signals.received, "tensorflow" in sys.modules, flush=True)
    if sys.argv[2:]:
        os.kill(os.getpid(), number)
assert signal.getsignal(number) is signal.SIG_DFL
"""


@pytest.mark.parametrize(("name", "number"), [("SIGTERM", 15), ("SIGUSR1", 10)])
@pytest.mark.parametrize("second", [[], ["a second one"]])
def test_the_first_is_told_and_the_second_ends_the_process(name, number, second):
    command = [sys.executable, "-c", PROGRAM, str(number), *second]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == f"stopped by {name} {number} False\n", done.stderr
    assert done.returncode == (-number if second else 0)
