"""The errors that a user can mend; the command line prints each on one line."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable


class PanopticError(ValueError):
    """Base of every error that this package raises about its input."""


class ConfigError(PanopticError):
    """A configuration key or value breaks a rule."""


class DataError(PanopticError):
    """A file of a data set breaks a rule; the message names the file."""


class DamagedFileError(DataError):
    """An image or a map cannot be decoded; training goes on without it."""


class WeightsError(PanopticError):
    """A file of weights cannot be read, or does not fit the model."""


class TrainingError(PanopticError):
    """Training cannot go on."""


class StoppedBySignalError(PanopticError):
    """A signal has ended a run, which has saved what it needs to go on.

    Args:
        number: int, that of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def exit_on_error(main: Callable[[], object]) -> None:
    """Runs `main()`; an error that the user can mend becomes one line and exit status 2.

    Warnings, such as Pillow's about damaged images, go to the log, a line each.
    """
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}"
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except StoppedBySignalError as error:
        print(f"{error}; the same command goes on", file=sys.stderr)
        sys.exit(128 + error.number)  # as if the signal had ended it: schedulers start it again
    except PanopticError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who reads the output wants no more, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(141)  # as if ended by SIGPIPE
