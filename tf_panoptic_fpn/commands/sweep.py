"""`sweep`: trains a configuration over a grid of values and several seeds."""

import argparse
import multiprocessing
import os
import pathlib
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

from tf_panoptic_fpn.errors import TrainingError, exit_on_error

if TYPE_CHECKING:
    from tf_panoptic_fpn.training.sweep import Run

SUMMARY = "train and evaluate a configuration over a grid of values and several seeds"
PASSED_ON = ("SIGTERM", "SIGUSR1")  # by which schedulers ask a run to save and end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="YAML file, or the name of a recipe")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="a.b=VALUE,VALUE",
        help="values of a key of the configuration; repeated, their product",
    )
    parser.add_argument("--trials", type=int, default=1, help="runs of a setting, by seed")
    parser.add_argument("--workdir", required=True, help="folder of the study")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=value", help="a value in all runs"
    )


def run(arguments: argparse.Namespace) -> None:
    from tf_panoptic_fpn.config import load_config
    from tf_panoptic_fpn.evaluation.study import format_study, summarize_study, write_study
    from tf_panoptic_fpn.training import sweep

    folder = pathlib.Path(arguments.workdir)
    grid = sweep.parse_grid(arguments.grid)
    runs = sweep.plan_runs(arguments.config, arguments.set, grid, arguments.trials, folder)
    base = load_config(arguments.config, arguments.set)
    sweep.check_same_study(base, list(grid), folder)

    def write() -> str:
        rows = summarize_study(sweep.settings_of(runs))
        write_study(folder, rows)
        return format_study(rows)

    def start(planned: "Run") -> int:
        status = run_in_process(arguments.config, planned)
        write()
        return status

    failed = sweep.do_runs(runs, start, lambda line: print(line, flush=True))
    print(f"\nMedians over the trials, per cent:\n{write()}")
    print(f"\ntable  {folder / 'sweep.csv'} ({folder / 'sweep.json'}: min, max, deviation, values)")
    print(f"chart  {folder / 'sweep.svg'}")
    if failed:
        name, reason = next(iter(failed.items()))
        raise TrainingError(
            f"{len(failed)} of {len(runs)} runs failed, the first of them {name}: {reason}; the "
            "same command tries them again"
        )


def run_in_process(config: str, planned: "Run") -> int:
    """Does a run in a process of its own, and passes on what asks it to end.

    Returns:
        The exit status of the process; negative for the signal that ended it.

    Raises:
        SystemExit: with that status, if the process was asked to end.
    """
    planned.workdir.create()
    arguments = (config, planned.overrides, str(planned.workdir.path))
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    process = context.Process(target=train_and_evaluate, args=arguments)
    passed: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        passed.append(number)
        if process.pid:
            os.kill(process.pid, number)

    numbers = [getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        process.start()
        process.join()
    except KeyboardInterrupt:  # the process has it too
        process.join()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    status = process.exitcode or 0
    if passed:
        sys.exit(status if status > 0 else 128 + passed[0])
    return status


def train_and_evaluate(config: str, overrides: tuple[str, ...], folder: str) -> None:
    """Trains, or goes on, and evaluates; all that is printed goes to `log.txt` in the folder."""
    log = os.open(pathlib.Path(folder, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)

    def work() -> None:
        from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow

        import_tensorflow()
        from tf_panoptic_fpn.config import load_config
        from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
        from tf_panoptic_fpn.inference.model_source import find_model
        from tf_panoptic_fpn.training.loop import train

        train(load_config(config, list(overrides)), folder)
        evaluate_run(find_model(folder))

    exit_on_error(work)
