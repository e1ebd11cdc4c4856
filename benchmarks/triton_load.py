"""What Triton's server does under twice the load that it can carry.

python benchmarks/triton_load.py --image=IMAGE --server=PID [--url=localhost:8001] [--seconds=300]

First as many requests as it answers, always 16 at once; then twice as many a second, whatever comes
back. PID is that of the server, whose memory and its backends' is looked at.
"""

import argparse
import json
import os
import pathlib
import queue
import re
import threading
import time

import numpy as np
import tritonclient.grpc
from measure import machine

AT_ONCE, WARM_SECONDS = 16, 10
REFUSED = re.compile("exceeds maximum queue size|timeout expired", re.IGNORECASE)


class Load:
    """Requests of one image, and what became of them."""

    def __init__(self, url, data):
        self._client = tritonclient.grpc.InferenceServerClient(url)
        value = tritonclient.grpc.InferInput("image_bytes", [1, 1], "BYTES")
        value.set_data_from_numpy(np.array([[data]], object))
        self._inputs = [value]
        self._outputs = [tritonclient.grpc.InferRequestedOutput("panoptic_png_bytes")]
        self.ended = queue.Queue()  # (seconds, error or None)

    def send(self):
        start = time.perf_counter()

        def end(result, error):
            self.ended.put((time.perf_counter() - start, error))

        self._client.async_infer("panoptic_fpn", self._inputs, end, outputs=self._outputs)

    def capacity(self, seconds):
        """Requests a second that are answered, `AT_ONCE` at a time."""
        for _ in range(AT_ONCE):
            self.send()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            _, error = self.ended.get()
            if error is not None:
                raise error
            count += 1
            self.send()
        rate = count / (time.perf_counter() - start)
        for _ in range(AT_ONCE):
            self.ended.get()
        return rate

    def overload(self, rate, seconds):
        """Sends at a rate; returns how many, and what ended."""
        start, count = time.perf_counter(), 0
        while (now := time.perf_counter() - start) < seconds:
            while count < now * rate:
                self.send()
                count += 1
            time.sleep(0.5 / rate)
        return count, [self.ended.get(timeout=120) for _ in range(count)]


def memory_mib(pid):
    """Of a process and all below it."""
    total = 0
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1]), int(fields[21])
        except OSError:  # it has ended
            continue
    for number, (_, pages) in parents.items():
        above = number
        while above in parents and above != pid:
            above = parents[above][0]
        total += pages if above == pid else 0
    return total * os.sysconf("SC_PAGE_SIZE") >> 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--image", required=True)
    parser.add_argument("--server", type=int, required=True, help="its process")
    parser.add_argument("--url", default="localhost:8001", help="of gRPC")
    parser.add_argument("--seconds", type=float, default=300)
    arguments = parser.parse_args()
    line = {"benchmark": "triton_load", **machine("tritonclient"), "seconds": arguments.seconds}
    load = Load(arguments.url, pathlib.Path(arguments.image).read_bytes())
    line["capacity"] = round(load.capacity(min(WARM_SECONDS, arguments.seconds)), 2)
    memory = []
    done = threading.Event()

    def look():
        while not done.wait(1):
            memory.append(memory_mib(arguments.server))

    watcher = threading.Thread(target=look)
    watcher.start()
    sent, ended = load.overload(2 * line["capacity"], arguments.seconds)
    done.set()
    watcher.join()
    answered = [seconds for seconds, error in ended if error is None]
    refused = sum(error is not None and bool(REFUSED.search(str(error))) for _, error in ended)
    first = memory[: max(1, min(60, len(memory) // 2))]
    line |= {
        "sent": sent,
        "answered": len(answered),
        "refused": refused,
        "failed": sent - len(answered) - refused,
        "p50_seconds": round(float(np.percentile(answered, 50)), 3),
        "p99_seconds": round(float(np.percentile(answered, 99)), 3),
        "peak_mib_of_the_first_minute": max(first),
        "peak_mib": max(memory),
    }
    failures = {str(e) for _, e in ended if e is not None and not REFUSED.search(str(e))}
    if failures:
        line["failures"] = sorted(failures)[:5]
    print(json.dumps(line))


if __name__ == "__main__":
    main()
