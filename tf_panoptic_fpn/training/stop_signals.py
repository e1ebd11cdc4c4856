"""Signals by which a scheduler ends a run that it will start again."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tf_panoptic_fpn.errors import StoppedBySignalError

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopSignals:
    """What came of SIGTERM and SIGUSR1; the loop asks after each step."""

    def __init__(self) -> None:
        self.received: int | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catches the signals; in another thread than the first, where none arrive, does nothing.

        A second one ends the process as if there were no handler.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def check(self) -> None:
        """Raises StoppedBySignalError if a signal has come."""
        if self.received is not None:
            raise StoppedBySignalError(self.received)
