"""What the benchmarks share: clocks for stages, and the line that each prints.

A line is one JSON object: `benchmark`, what `machine` says, what was measured, and `stages`, the
median wall and processor seconds of each stage with the spread of its rounds. Where a stage has
multiply-adds, `multiply_adds` has them, and `of_the_peak` their share of those that the machine
does in a large matrix product in as many processor seconds.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import statistics
import sys
import time


class Stages:
    """Wall and processor seconds of named stages, over rounds."""

    def __init__(self):
        self._seconds = {}

    def run(self, name, function, *arguments):
        """Calls a function and adds what it takes to a stage; returns what it returns."""
        start = time.perf_counter(), processor_seconds()
        result = function(*arguments)
        end = time.perf_counter(), processor_seconds()
        self.add(name, *(after - before for before, after in zip(start, end, strict=True)))
        return result

    def add(self, name, wall, cpu):
        """Adds a round of a stage."""
        self._seconds.setdefault(name, []).append((wall, cpu))

    def least(self, name):
        """The fewest processor seconds of a stage in a round."""
        return min(cpu for _, cpu in self._seconds[name])

    def medians(self):
        """dict stage -> `wall`, `cpu` and, of the rounds, `cpu_spread`, (most - least) / median."""
        figures = {}
        for name, rounds in self._seconds.items():
            wall, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
            seconds = [cpu for _, cpu in rounds]
            spread = (max(seconds) - min(seconds)) / cpu if cpu else 0.0
            figures[name] = {
                "wall": round(wall, 6),
                "cpu": round(cpu, 6),
                "cpu_spread": round(spread, 3),
            }
        return figures


def processor_seconds():
    """Of this process and of the workers that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def machine(*packages):
    """What a line says of the machine and of the packages, before anything is measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    line = {
        "date": time.strftime("%Y-%m-%d"),
        "device": _processor(),
        "cores": cores,
        "threads": cores,  # TensorFlow's and PyTorch's, unless told otherwise
        "load": None if load is None else round(load, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    if load is not None and load > 0.5:
        line["loaded"] = "other work runs: processor seconds and ratios tell, wall seconds do not"
    return line


def _processor():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def matrix_peak(size=2048, rounds=5):
    """Multiply-adds a processor second of TensorFlow's product of two square matrices, the most."""
    import tensorflow as tf

    matrix = tf.random.stateless_normal([size, size], [0, 0])
    stages = Stages()
    for _ in range(rounds):
        stages.run("product", tf.linalg.matmul, matrix, matrix)
    return round(size**3 / stages.least("product"))


def forget_peak_memory():
    """Has `peak_memory` count from here on, where the system can."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory():
    """The most that this process has held, in MB."""
    try:
        status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def report(line, stages, multiply_adds=None):
    """Prints the table of `Stages` to stderr and the line to stdout.

    Args:
        line: dict, `benchmark`, `machine()` and what was measured beside the stages.
        stages: `Stages`.
        multiply_adds: dict stage -> those of one round; None leaves the peak out.
    """
    figures = stages.medians()
    if multiply_adds is not None:
        peak = matrix_peak()
        line["matrix_peak"] = peak
        line["multiply_adds"] = multiply_adds
        line["of_the_peak"] = {
            name: round(count / figures[name]["cpu"] / peak, 3)
            for name, count in multiply_adds.items()
            if figures[name]["cpu"]
        }
    print_table(figures)
    print(json.dumps({**line, "stages": figures}))


def print_table(stages):
    """The figures of `Stages.medians` as a table, to stderr: stdout has the JSON line."""
    print(f"{'':28s}{'wall s':>10s}{'cpu s':>10s}{'spread':>9s}", file=sys.stderr)
    for name, row in stages.items():
        values = f"{row['wall']:10.2f}{row['cpu']:10.2f}{row['cpu_spread']:9.0%}"
        print(f"{name:28s}{values}", file=sys.stderr)
