"""What the machines of a run do together: agree, wait for each other, and end together."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.config import Config, TrainConfig
from tf_panoptic_fpn.distribution.rendezvous import worker_addresses, worker_index
from tf_panoptic_fpn.distribution.replicas import build_strategy
from tf_panoptic_fpn.errors import ConfigError, TrainingError
from tf_panoptic_fpn.inference.devices import limit_gpu_memory
from tf_panoptic_fpn.version import __version__
from tf_panoptic_fpn.workdir import Workdir

# What another machine may have otherwise: the same files may lie elsewhere.
_LOCAL = ("data.root", "data.index_cache")
# What TensorFlow raises here when another machine ends or does not answer.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
_SIGNS = ("collective", "remote target", "coordination", "heartbeat", "unhealthy")


class Workers:
    """The workers of a strategy; alone, this machine agrees with itself and waits for nobody.

    Args:
        strategy: `tf.distribute.Strategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        resolver = strategy.cluster_resolver
        self.addresses = worker_addresses(resolver) if resolver else ["localhost"]
        self.index = worker_index(resolver) if resolver else 0
        self.count = len(self.addresses)
        self.is_first = self.index == 0  # the one that writes

    def agree(self, facts: Mapping[str, object]) -> None:
        """Compares values between the workers.

        Args:
            facts: dict of name -> value, as many on each worker.

        Raises:
            ConfigError: on every worker, if a value is not the same on all.
        """
        if self.count == 1:
            return
        digests = [_digest(name, value) for name, value in facts.items()]
        for (name, value), column in zip(facts.items(), self._gather(digests).T, strict=True):
            others = np.flatnonzero(column != column[0])
            if len(others):
                other = others[0]
                raise ConfigError(
                    f"worker {other} ({self.addresses[other]}) has another {name} than worker 0 "
                    f"({self.addresses[0]}): all must start with the same. Received by worker "
                    f"{self.index}: {value!r}"
                )

    def agree_on_start(self, config: Config) -> None:
        """`agree` on the version of the package and on the configuration.

        Raises:
            ConfigError: see `agree`.
        """
        self.agree({"version of tf_panoptic_fpn": __version__})
        values = {
            f"`{section}.{key}`": value
            for section, keys in config.model_dump().items()
            for key, value in keys.items()
            if f"{section}.{key}" not in _LOCAL
        }
        self.agree(values)

    def wait(self) -> None:
        """Returns when every worker has called this."""
        if self.count > 1:
            self._gather([0])

    @contextlib.contextmanager
    def first_ahead(self) -> Iterator[None]:
        """The first worker does what is inside, then the others do."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def own_workdir(self, workdir: Workdir) -> Workdir:
        """The folder that this worker may write to: for all but the first, one that is removed."""
        if self.is_first:
            return workdir
        self.scratch = tempfile.TemporaryDirectory()
        return Workdir(self.scratch.name)

    def largest(self, row: Sequence[int]) -> list[int]:
        """Returns the largest of each of some ints of all workers."""
        return list(row) if self.count == 1 else self._gather(row).max(axis=0).tolist()

    def _gather(self, row: Sequence[int]) -> np.ndarray:
        """Returns int64 `[workers, n]`, the row of each."""
        rows = np.zeros((self.count, len(row)), np.int64)
        rows[self.index] = row
        return self.strategy.reduce("SUM", tf.constant(rows), axis=None).numpy()

    @contextlib.contextmanager
    def ending_together(self) -> Iterator[None]:
        """An error of TensorFlow's that is another worker's end becomes one that says so.

        Raises:
            TrainingError: if another worker has ended, or has not answered for too long.
        """
        try:
            yield
        except _LOST as error:
            message = str(error)
            if self.count == 1 or not any(sign in message.lower() for sign in _SIGNS):
                raise
            what = "another worker has ended; its own log says why"
            if isinstance(error, tf.errors.DeadlineExceededError):
                what = "another worker has not answered for too long"
            else:
                for i, address in enumerate(self.addresses):
                    if f"/task:{i}" in message and i != self.index:
                        what = f"worker {i} ({address}) has ended; its own log says why"
                        break
            raise TrainingError(
                f"worker {self.index} of {self.count} stops: {what}. Start all again: they go on "
                "from the last checkpoint"
            ) from None


def start_workers(settings: TrainConfig) -> Workers:
    """Finds the other workers of a run and its devices; before TensorFlow computes anything.

    Args:
        settings: `TrainConfig`.

    Raises:
        ConfigError: see `build_strategy`.
    """
    limit_gpu_memory(settings.gpu_memory)
    return Workers(build_strategy(settings.replicas))


def _digest(name: str, value: object) -> int:
    text = f"{name}={value!r}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")
