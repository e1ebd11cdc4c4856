"""Kills runs at random moments, some while they save, and compares what they end with.

python benchmarks/killed_runs.py --config=tests/tiny.yaml [--kills=20] [--kills-a-run=5] [--seed=0]

Each run is killed by SIGKILL so many times, gone on with each time, and at last left to end. Its
last checkpoint (weights, optimizer and counts) must equal that of a run that was not killed, bit
for bit. Linux or macOS.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.loop import train

SAVING_SECONDS = 0.02  # of a small model
STEPS_AHEAD = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-a-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    steps = (STEPS_AHEAD + 1) * (arguments.kills_a_run + 1)
    settings = ["train.deterministic=true", "train.checkpoint_every=2", "train.log_every=1"]
    settings.append(f"train.steps={steps}")
    config = load_config(arguments.config, [*settings, *arguments.set])
    draws = random.Random(arguments.seed)
    kills = while_saving = equal = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        reference = pathlib.Path(folder, "reference")
        assert in_a_process(config, reference) == 0
        while kills < arguments.kills:
            workdir = pathlib.Path(folder, f"run_{runs}")
            for _ in range(min(arguments.kills_a_run, arguments.kills - kills)):
                is_saving = draws.random() < 0.5
                assert in_a_process(config, workdir, is_saving, draws) == signal.SIGKILL
                kills += 1
                while_saving += is_saving
            assert in_a_process(config, workdir) == 0
            runs += 1
            equal += is_equal(workdir, reference, steps)
            print(f"{kills} kills: {equal} of {runs} runs equal", file=sys.stderr)
    line = {"benchmark": "killed_runs", "config": arguments.config, "steps": steps}
    line |= {"kills": kills, "while_saving": while_saving, "runs": runs, "equal_runs": equal}
    print(json.dumps(line))


def in_a_process(config, workdir, is_saving=False, draws=None):
    """Trains in a process of its own, killed at a moment that is drawn; returns how it ended."""
    plan = draws and (draws.randint(1, 2 if is_saving else STEPS_AHEAD), draws.random())
    process = os.fork()
    if process == 0:
        status = 1
        os.dup2(2, 1)  # What a run says is not this benchmark's line.
        try:
            # Half of the first run of a graph is Grappler's.
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
            if plan:
                owner, name = (tf.raw_ops, "SaveV2") if is_saving else (MetricsLog, "write")
                kill_after(owner, name, *plan, SAVING_SECONDS if is_saving else 1.0)
            train(config, workdir)
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(ended) if os.WIFEXITED(ended) else os.WTERMSIG(ended)


def kill_after(owner, name, calls, share, seconds):
    """Has this process killed a share of `seconds` after the so-many-th call of a function."""
    function = getattr(owner, name)
    left = [calls]

    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            kill = threading.Timer(share * seconds, os.kill, (os.getpid(), signal.SIGKILL))
            kill.start()
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def is_equal(workdir, reference, step):
    """Whether two runs ended with the same values, bit for bit."""
    paths = [str(folder / "checkpoints" / f"ckpt-{step}") for folder in (workdir, reference)]
    readers = [tf.train.load_checkpoint(path) for path in paths]
    names, expected = (sorted(reader.get_variable_to_shape_map()) for reader in readers)
    return names == expected and all(
        len({np.asarray(reader.get_tensor(name)).tobytes() for reader in readers}) == 1
        for name in names
    )


if __name__ == "__main__":
    main()
