"""Runs of one configuration over a grid of values and seeds: a study."""

import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from tf_panoptic_fpn.config import Config, load_config, load_run_config, save_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.evaluation.study import value_text
from tf_panoptic_fpn.messages import one_line
from tf_panoptic_fpn.workdir import Workdir

SEED = "train.seed"
Grid = Mapping[str, Sequence[Any]]  # dotted key -> values


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        values: dict of dotted key -> value, of the grid.
        seed: int, `train.seed`.
        workdir: `Workdir`, `FOLDER/KEY=VALUE,.../seed=N`.
        overrides: `a.b=value` strings, the base configuration's own included.
    """

    values: Mapping[str, Any]
    seed: int
    workdir: Workdir
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.workdir.path.parent.name}/{self.workdir.path.name}"

    def is_finished(self) -> bool:
        return self.workdir.results.is_file()


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Reads `a.b=VALUE,VALUE` strings, each value in YAML.

    Raises:
        ConfigError: if one is not of that form, or a key or a value stands there twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, separator, listed = text.partition("=")
        if not separator or not key or not listed.strip():
            raise ConfigError(f"--grid takes a.b=VALUE,VALUE. Received: {text!r}")
        try:
            values = yaml.safe_load(f"[{listed}]")
        except yaml.YAMLError as error:
            raise ConfigError(f"--grid {key}: not YAML: {one_line(error)}") from None
        if key in grid:
            raise ConfigError(f"--grid {key}: is given twice")
        written = [value_text(value) for value in values]
        doubled = sorted({w for w in written if written.count(w) > 1})
        if doubled:
            raise ConfigError(f"--grid {key}: has a value twice: {', '.join(doubled)}")
        grid[key] = values
    return grid


def plan_runs(
    config: str, overrides: Sequence[str], grid: Grid, trials: int, folder: pathlib.Path
) -> list[Run]:
    """Lists the runs of a study, the seeds of a setting one after another.

    Every configuration is read, so that what is wrong with one is said before the first run.

    Args:
        config: path of the YAML file, or the name of a recipe.
        overrides: `a.b=value` strings on all runs.
        grid: see `parse_grid`.
        trials: int, runs of each setting; the seeds count up from the configuration's.
        folder: of the study.

    Raises:
        ConfigError: if a configuration breaks a rule, two runs would share a folder, or there are
            several trials of seeds that the grid gives.
    """
    if trials < 1:
        raise ConfigError(f"--trials must be 1 or above. Received: {trials}")
    if SEED in grid and trials > 1:
        raise ConfigError(f"--trials: the grid gives {SEED}, which is what trials differ in")
    runs = []
    for combination in itertools.product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        settings = [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]
        seed = load_config(config, settings).train.seed
        name = _folder_name(values)
        for trial in range(seed, seed + trials):
            workdir = Workdir(folder / name / f"seed={trial}")
            runs.append(Run(values, trial, workdir, (*settings, f"{SEED}={trial}")))
    paths = [run.workdir.path for run in runs]
    shared = sorted({str(path) for path in paths if paths.count(path) > 1})
    if shared:
        raise ConfigError(f"--grid: two settings would have the folder {shared[0]}")
    return runs


def check_same_study(base: Config, keys: Sequence[str], folder: pathlib.Path) -> None:
    """Compares the base configuration with that of the study in a folder; writes it if there is
    none.

    The grid and the number of trials may change: what is there is not done again.

    Args:
        base: `Config`, without the values of the grid.
        keys: dotted keys of the grid, whose base values do not matter.
        folder: of the study.

    Raises:
        ConfigError: if another value differs, or the folder cannot be written.
    """
    Workdir(folder).create()
    path = folder / "sweep.yaml"
    if not path.exists():
        save_config(base, path)
        return
    known = load_run_config(path)
    for name in Config.model_fields:
        old, new = (getattr(c, name).model_dump() for c in (known, base))
        for key in old:
            dotted = f"{name}.{key}"
            if old[key] != new[key] and dotted not in keys:
                raise ConfigError(
                    f"{path}: the folder holds a study with `{dotted}` = {old[key]!r}; use "
                    f"another one. Received: {new[key]!r}"
                )


def do_runs(
    runs: Sequence[Run], start: Callable[[Run], int], say: Callable[[str], None]
) -> dict[str, str]:
    """Does the runs that are not finished, one after another; one that fails loses no other.

    Args:
        runs: list of `Run`.
        start: trains and evaluates a run, or goes on with it; returns the exit status, negative
            for the signal that ended it.
        say: takes a line for each run.

    Returns:
        Dict: name of a run that failed -> why.
    """
    failed = {}
    for number, run in enumerate(runs, start=1):
        place = f"{number}/{len(runs)} {run.name}"
        if run.is_finished():
            say(f"{place}: is there")
            continue
        say(f"{place}: see {log_of(run)}")
        earlier = log_of(run).stat().st_size if log_of(run).exists() else 0
        status = start(run)
        if run.is_finished():
            continue
        failed[run.name] = _reason(run, status, earlier)
        say(f"{place}: failed: {failed[run.name]}")
    return failed


def settings_of(runs: Sequence[Run]) -> list[tuple[Mapping[str, Any], list[pathlib.Path]]]:
    """Returns the runs by their setting: (values, folders of the trials)."""
    grouped = itertools.groupby(runs, key=lambda run: run.workdir.path.parent)
    groups = [list(group) for _, group in grouped]
    return [(group[0].values, [run.workdir.path for run in group]) for group in groups]


def log_of(run: Run) -> pathlib.Path:
    """The file of what a run prints."""
    return run.workdir.path / "log.txt"


def _reason(run: Run, status: int, earlier: int) -> str:
    """Why a run ended without results: the last error in its log, or its last line.

    Args:
        run: `Run`.
        status: int, of its process.
        earlier: int, bytes of the log that are from earlier tries.
    """
    if status < 0:
        killed = " (SIGKILL; often the system's, where memory runs out)" if status == -9 else ""
        return f"ended by signal {-status}{killed}"
    try:
        lines = log_of(run).read_bytes()[earlier:].decode(errors="replace").splitlines()
    except OSError:
        lines = []
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")] or lines
    return errors[-1].removeprefix("error: ")[:300] if errors else f"exit status {status}"


def _folder_name(values: Mapping[str, Any]) -> str:
    text = ",".join(f"{key}={value_text(value)}" for key, value in values.items())
    return re.sub(r"[^\w.=,+\[\]-]", "_", text) or "base"
