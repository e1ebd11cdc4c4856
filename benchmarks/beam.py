"""How much faster many images are with two processes of `predict-beam` than with one.

python benchmarks/beam.py --model=MODEL [--images=2000 --size=128x160] [--workers=1,2]

Each process has one thread for TensorFlow. `images_per_second` counts from the first shard that is
written to the last, so it leaves out most of what it takes to load the model; `seconds` is the
whole command. On a machine that does other work the ratios say nothing.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from measure import machine
from PIL import Image

SHARD = 10  # images, about


def write_images(folder, count, size):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
        coarse.resize(size[::-1]).save(folder / f"{number:06}.jpg")


def predict(model, images, output, count, workers):
    """The figures of one run."""
    command = [sys.executable, "-m", "tf_panoptic_fpn", "predict-beam", model, f"{images}/*.jpg"]
    command += [f"--output={output}", f"--num-shards={-(-count // SHARD)}"]
    command += ["--beam", f"--direct_num_workers={workers}"]
    command += ["--direct_running_mode=multi_processing"]
    single = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **single})
    seconds = time.perf_counter() - start
    written = sorted(path.stat().st_mtime for path in output.glob("*.parquet"))
    steady = (len(written) - 1) * count / len(written) / max(written[-1] - written[0], 1e-9)
    return {"seconds": round(seconds, 1), "images_per_second": round(steady, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", default="128x160", help="height x width")
    parser.add_argument("--workers", default="1,2", help="numbers of processes to compare")
    arguments = parser.parse_args()
    size = tuple(int(side) for side in arguments.size.split("x"))
    workers = [int(number) for number in arguments.workers.split(",")]
    line = {"benchmark": "beam", **machine("apache-beam", "tensorflow")}
    line |= {"model": arguments.model, "images": arguments.images, "size": size}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_images(folder / "images", arguments.images, size)
        for number in workers:
            output = folder / f"workers_{number}"
            name = f"workers_{number}"
            line[name] = predict(
                arguments.model, folder / "images", output, arguments.images, number
            )
    first, last = (line[f"workers_{number}"] for number in (workers[0], workers[-1]))
    for name, ratio in (
        ("seconds", first["seconds"] / last["seconds"]),
        ("images_per_second", last["images_per_second"] / first["images_per_second"]),
    ):
        line[f"speedup_of_{name}"] = round(ratio, 2)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
