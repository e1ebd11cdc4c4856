"""What the gate before Triton's server adds to a request of one image.

python benchmarks/triton_gate.py --server=PID [--http=localhost:8000] [--grpc=localhost:8001]

PID is that of `export/triton/serve.py`. Images of about 100 kB and 5 MB are sent in turn through
the gate and to the server behind it: medians of wall milliseconds, and the processor milliseconds
of the gate.
"""

import argparse
import http.client
import io
import json
import os
import pathlib
import socket
import statistics
import time

import numpy as np
import tritonclient.grpc
import tritonclient.http
from measure import machine
from PIL import Image

SIDES = {"100kB": 183, "5MB": 1300}
OUTPUT = "panoptic_png_bytes"


class Unix(http.client.HTTPConnection):
    """To a socket in a file, whose path is the host."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def noise(side):
    """bytes of a PNG, 3 a pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tensors(client, image):
    value = client.InferInput("image_bytes", [1, 1], "BYTES")
    value.set_data_from_numpy(np.array([[image]], object))
    return [value], [client.InferRequestedOutput(OUTPUT)]


def http_sender(connection, image):
    inputs, outputs = tensors(tritonclient.http, image)
    make = tritonclient.http.InferenceServerClient.generate_request_body
    body, head = make(inputs, outputs)
    headers = {"Inference-Header-Content-Length": str(head)}

    def send():
        connection.request("POST", "/v2/models/panoptic_fpn/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    return send


def grpc_sender(address, image):
    client = tritonclient.grpc.InferenceServerClient(address)
    inputs, outputs = tensors(tritonclient.grpc, image)
    return lambda: client.infer("panoptic_fpn", inputs, outputs=outputs)


def sockets(pid):
    """Where the server behind the gate listens, for HTTP and for gRPC."""
    (child,) = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    flags = pathlib.Path(f"/proc/{child}/cmdline").read_text().split("\0")
    values = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    grpc = f"{values['--grpc-address']}:{values['--grpc-port']}"
    return values["--http-address"].removeprefix("unix:"), grpc


def processor_ms(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(pid, direct, gate, rounds):
    """Medians of wall milliseconds, and processor milliseconds of the gate."""
    wall, processor = {"direct": [], "gate": []}, 0
    for _ in range(rounds):
        for name, send in (("direct", direct), ("gate", gate)):
            before, start = processor_ms(pid), time.perf_counter()
            send()
            wall[name].append(1000 * (time.perf_counter() - start))
            processor += processor_ms(pid) - before
    figures = {name: round(statistics.median(values), 2) for name, values in wall.items()}
    return {**figures, "processor_of_the_gate": round(processor / rounds, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--server", type=int, required=True, help="its process")
    parser.add_argument("--http", default="localhost:8000")
    parser.add_argument("--grpc", default="localhost:8001")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    line = {"benchmark": "triton_gate", **machine("tritonclient", "aiohttp", "grpcio")}
    http_socket, grpc_socket = sockets(arguments.server)
    for size, side in SIDES.items():
        image = noise(side)
        line[size] = {"bytes": len(image)}
        for kind, direct, gate in (
            (
                "http",
                http_sender(Unix(http_socket), image),
                http_sender(http.client.HTTPConnection(arguments.http), image),
            ),
            ("grpc", grpc_sender(grpc_socket, image), grpc_sender(arguments.grpc, image)),
        ):
            line[size][kind] = measured(arguments.server, direct, gate, arguments.rounds)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
