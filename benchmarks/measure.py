"""What the benchmarks share: clocks for stages, and what a line says of the machine."""

import importlib.metadata
import os
import pathlib
import platform
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
        taken = tuple(after - before for before, after in zip(start, end, strict=True))
        self._seconds.setdefault(name, []).append(taken)
        return result

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


def print_table(stages):
    """The figures of `Stages.medians` as a table, to stderr: stdout has the JSON line."""
    print(f"{'':28s}{'wall s':>10s}{'cpu s':>10s}{'spread':>9s}", file=sys.stderr)
    for name, row in stages.items():
        values = f"{row['wall']:10.2f}{row['cpu']:10.2f}{row['cpu_spread']:9.0%}"
        print(f"{name:28s}{values}", file=sys.stderr)
