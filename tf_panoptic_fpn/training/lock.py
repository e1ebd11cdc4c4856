"""One run at a time in a workdir."""

import contextlib
import os
import socket
from collections.abc import Iterator

import filelock
from absl import logging

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.workdir import Workdir


@contextlib.contextmanager
def only_run(workdir: Workdir) -> Iterator[None]:
    """Holds a workdir until the end of the context or of the process, however that ends.

    The operating system keeps the lock (`flock`, which NFS passes on to its server), so that none
    is left by a process that died. Who holds it is in a file beside it.

    Raises:
        ConfigError: if another run holds it; says which.
    """
    lock = filelock.FileLock(workdir.lock)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ConfigError(
            f"{workdir.path}: another run is at work in this workdir, {_holder(workdir)}; wait for "
            "it, end it, or use another workdir"
        ) from None
    except (OSError, NotImplementedError) as error:
        logging.warning(
            "%s: this file system has no locks (%s); start one run alone", workdir.path, error
        )
        yield
        return
    try:
        write_text(workdir.lock_holder, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        workdir.lock_holder.unlink(missing_ok=True)
        lock.release()


def _holder(workdir: Workdir) -> str:
    with contextlib.suppress(OSError):
        return workdir.lock_holder.read_text(encoding="utf-8").strip()
    return "not known which"
