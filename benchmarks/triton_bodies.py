"""What Triton's server answers to 200 bodies that are malformed, by kind.

python benchmarks/triton_bodies.py --image=IMAGE [--url=localhost:8000]

Prints the counts of each HTTP status, and that of a good request at the end.
"""

import argparse
import collections
import json
import pathlib
import urllib.error
import urllib.request

import numpy as np
import tritonclient.http
from measure import machine

LENGTH = "Inference-Header-Content-Length"
INPUT = {"name": "image_bytes", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}


def wrong_json():
    """27 documents: wrong members and types, and an image that is none."""
    changes = [
        {"name": 1},
        {"name": "other"},
        {"shape": "x"},
        {"shape": [-1, 1]},
        {"shape": [2, 1]},
        {"shape": [9, 1], "data": ["x"] * 9},
        {"datatype": "FP32", "data": [1.0]},
        {"datatype": "NONE"},
        {"data": [1]},
        {"data": "x"},
        {"data": None},
        {"name": "stuff_area", "datatype": "INT32", "data": [1]},
        {},
    ]
    more = [{"outputs": [{"name": "none"}]}, {"outputs": 1}, {"parameters": 1}, {"id": 1}]
    whole = [{}, [], 1, "x", None, {"inputs": []}, {"inputs": {}}, {"inputs": 1}, {"inputs": [1]}]
    whole += [{"inputs": [{"name": "image_bytes"}]}]
    whole += [{"inputs": [{**INPUT, **change}]} for change in changes]
    return whole + [{"inputs": [INPUT], **one} for one in more]


def malformed(image):
    """dict kind -> list of bodies, each with its headers."""
    rng = np.random.default_rng(0)
    value = tritonclient.http.InferInput("image_bytes", [1, 1], "BYTES")
    value.set_data_from_numpy(np.array([[image]], object))
    good, head = tritonclient.http.InferenceServerClient.generate_request_body([value])
    headers = {LENGTH: str(head)}
    texts = [b"x", b"[", b"hello", b"<xml/>", b"{", b"nul", b"'a'", b"{]"]
    changed = [(good[: head + int(n)], headers) for n in rng.integers(0, 100, 20)]
    for length in (0, -1, "x", 999999999, 5, head - 1, head + 1):
        changed.append((good, {LENGTH: str(length)}))
    for _ in range(37):
        body = bytearray(good)
        for place in rng.integers(0, head, 3):
            body[place] = rng.integers(0, 256)
        changed.append((bytes(body), headers))
    bodies = {
        "empty": [(b"", {})],
        "no JSON": [(body, {}) for body in texts]
        + [(rng.bytes(int(n)), {}) for n in rng.integers(1, 200, 60)],
        "cut JSON": [(good[: int(n)], {}) for n in rng.integers(1, head, 40)],
        "wrong JSON": [(json.dumps(document).encode(), {}) for document in wrong_json()],
        "changed": changed,
    }
    return bodies, (good, headers)


def send(url, body, headers):
    """The status of the answer."""
    place = f"http://{url}/v2/models/panoptic_fpn/infer"
    try:
        request = urllib.request.Request(place, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--image", required=True)
    parser.add_argument("--url", default="localhost:8000", help="of HTTP")
    arguments = parser.parse_args()
    line = {"benchmark": "triton_bodies", **machine("tritonclient")}
    bodies, good = malformed(pathlib.Path(arguments.image).read_bytes())
    total = collections.Counter()
    for kind, requests in bodies.items():
        counts = collections.Counter()
        for body, headers in requests:
            counts[send(arguments.url, body, headers)] += 1
        line[kind] = counts
        total += counts
    line |= {"all": total, "good": send(arguments.url, *good)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
