"""The machines of a run: who they are by the environment, and waiting until all of them are there.

TensorFlow waits for a machine that never comes without a limit, and cannot be interrupted then.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.errors import ConfigError, TrainingError

WAIT_SECONDS = 600  # for all machines to start
_PORTS = 20000  # a job of Slurm has one of the ports from here on
_NUM_PORTS = 10000

Resolver: TypeAlias = Any  # tf.distribute.cluster_resolver.ClusterResolver


def find_cluster() -> Resolver | None:
    """Returns the resolver of `TF_CONFIG` or of Slurm's variables; None on a single machine.

    Raises:
        ConfigError: if `TF_CONFIG` cannot be read.
    """
    if os.environ.get("TF_CONFIG"):
        return _cluster_of_tf_config()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _cluster_of_slurm()
    return None


def _cluster_of_tf_config() -> Resolver | None:
    text = os.environ["TF_CONFIG"]
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        jobs, own = resolver.cluster_spec().as_dict(), json.loads(text).get("task", {})
        if not jobs:
            return None
        if set(jobs) - {"chief", "worker"} or not 0 <= own["index"] < len(jobs[own["type"]]):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            "`TF_CONFIG` must be JSON with the addresses of a `worker` job (and a `chief`) in "
            f"`cluster`, and with the `type` and `index` of one of these in `task`. "
            f"Received: {text!r}"
        ) from None
    return resolver if sum(map(len, jobs.values())) > 1 else None


def _cluster_of_slurm() -> Resolver:
    """Each task has the GPUs that it sees, which is Slurm's to say."""
    port = _PORTS + int(os.environ["SLURM_JOB_ID"]) % _NUM_PORTS
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=port, gpus_per_node=2**16, gpus_per_task=1, auto_set_gpu=False
    )
    addresses = slurm.cluster_spec().as_dict()["worker"]
    # The resolver sorts the hosts by name, which may not be the order of Slurm's ranks.
    own = f"{os.environ['SLURMD_NODENAME']}:{port + int(os.environ['SLURM_LOCALID'])}"
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}),
        task_type="worker",
        task_id=addresses.index(own),
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )


def worker_addresses(resolver: Resolver) -> list[str]:
    """Returns "host:port" of each worker; the first is the one that writes."""
    jobs = resolver.cluster_spec().as_dict()
    return [*jobs.get("chief", []), *jobs.get("worker", [])]


def worker_index(resolver: Resolver) -> int:
    """Returns the position of this machine in `worker_addresses`."""
    before = resolver.cluster_spec().as_dict().get("chief", [])
    return resolver.task_id + (len(before) if resolver.task_type == "worker" else 0)


def wait_for_all(addresses: Sequence[str], index: int, seconds: float = WAIT_SECONDS) -> None:
    """Returns when every worker listens at its address, as this one does until then.

    Args:
        addresses: "host:port" of each worker.
        index: int, which of them is this.
        seconds: float, how long to wait.

    Raises:
        ConfigError: if this worker's port is taken.
        TrainingError: if one has not come by then.
    """
    deadline = time.monotonic() + seconds
    missing = [address for i, address in enumerate(addresses) if i != index]
    with _listening(addresses[index]):
        logged = False
        while missing := [address for address in missing if not _listens(address)]:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{len(missing)} of {len(addresses)} workers have not come within "
                    f"{seconds:.0f} s: {', '.join(missing)}"
                )
            if not logged:
                logging.warning("waiting for the workers %s", ", ".join(missing))
                logged = True
            time.sleep(0.2)


def _listening(address: str) -> contextlib.closing:
    port = int(address.rpartition(":")[2])
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
    except OSError as error:
        server.close()
        raise ConfigError(f"{address}, of this worker: cannot listen: {error.strerror}") from None
    server.listen(128)
    return contextlib.closing(server)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True
