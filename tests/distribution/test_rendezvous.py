"""Which machines there are by the environment, and waiting for them."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading

import pytest
import yaml
from docs_commands import ROOT

from tf_panoptic_fpn.distribution.rendezvous import (
    find_cluster,
    wait_for_all,
    worker_addresses,
    worker_index,
)
from tf_panoptic_fpn.errors import ConfigError, TrainingError


@contextlib.contextmanager
def free_addresses(count):
    """Addresses whose ports are free when this is left."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        yield [f"localhost:{each.getsockname()[1]}" for each in sockets]


def tf_config(monkeypatch, cluster, **task):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))


def test_one_machine(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert find_cluster() is None
    tf_config(monkeypatch, {"worker": ["a:1"]}, type="worker", index=0)
    assert find_cluster() is None


@pytest.mark.parametrize(("kind", "index", "position"), [("chief", 0, 0), ("worker", 1, 2)])
def test_the_chief_is_the_first_worker(monkeypatch, kind, index, position):
    cluster = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    tf_config(monkeypatch, cluster, type=kind, index=index)
    assert worker_addresses(find_cluster()) == ["a:1", "b:1", "c:1"]
    assert worker_index(find_cluster()) == position


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_damaged_tf_config(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="`TF_CONFIG` must be JSON with the addresses"):
        find_cluster()


def test_slurm_whose_ranks_are_not_in_the_order_of_names(monkeypatch):
    """The resolver puts node10 before node9; the place of a task is that of its node's name."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    environment = {
        "STEP_NUM_TASKS": "4",
        "STEP_NODELIST": "node[9-10]",
        "STEP_TASKS_PER_NODE": "2(x2)",
        "JOB_ID": "1230042",
        "PROCID": "1",
        "LOCALID": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "node9")
    cluster = find_cluster()
    assert worker_addresses(cluster) == [
        "node10:20042",
        "node10:20043",
        "node9:20042",
        "node9:20043",
    ]
    assert worker_index(cluster) == 3
    assert cluster.num_accelerators() == {"GPU": 0}
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert find_cluster() is None


def test_waits_for_a_worker_that_comes_late():
    with free_addresses(2) as addresses:
        pass
    with socket.socket() as other:
        other.bind(("localhost", int(addresses[1].rpartition(":")[2])))
        late = threading.Timer(0.3, other.listen)
        late.start()
        wait_for_all(addresses, 0, seconds=20)
        assert late.finished.is_set()
        late.join()


def test_a_worker_that_does_not_come():
    with free_addresses(2) as addresses:
        pass
    expected = f"1 of 2 workers have not come within 0 s: {addresses[1]}"
    with pytest.raises(TrainingError, match=expected):
        wait_for_all(addresses, 0, seconds=0)


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{address}, of this worker: cannot listen: Address"):
            wait_for_all([address, "localhost:1"], 0, seconds=0)


def test_the_documented_jobset_names_its_pods_in_tf_config(monkeypatch):
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    (jobset,) = re.findall(
        r"^```yaml\n(apiVersion: jobset.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    tree = yaml.safe_load(jobset)
    (job,) = tree["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("exec tf-panoptic-fpn", 'printf %s "$TF_CONFIG" #')
    done = subprocess.run(
        [*container["command"], script],
        env={"PATH": os.environ["PATH"], "JOB_COMPLETION_INDEX": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    monkeypatch.setenv("TF_CONFIG", done.stdout)
    cluster = find_cluster()
    name, pods = tree["metadata"]["name"], job["template"]["spec"]["completions"]
    assert worker_addresses(cluster) == [
        f"{name}-{job['name']}-0-{i}.{name}:2222" for i in range(pods)
    ]
    assert worker_index(cluster) == 2
