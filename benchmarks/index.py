"""Builds and loads the index of a synthesised data set of COCO's size.

python benchmarks/index.py [--images=118287 --instances=860001] [--panoptic] [--folder=DIR]

With --panoptic, the instances lie beside a panoptic JSON with 11 segments an image. The polygons
are circles with noise, as large as those of COCO and with as many points: the instances JSON has
500 bytes an annotation. The image files are hard links to a few JPEGs, and the maps, of which no
pixel is read, to a few PNGs. Memory is that beyond what importing the package takes.
"""

import argparse
import json
import os
import pathlib
import resource
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from PIL import Image

from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data.splits import load_index

SIZES = ((427, 640), (480, 640), (640, 480), (612, 612))
NUM_CATEGORIES = 80
NUM_STUFF = 53
SEGMENTS_PER_IMAGE = 11


def write_data_set(folder, num_images, num_instances):
    """Writes `instances.json` and `images/` in a folder."""
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    for i, (height, width) in enumerate(SIZES):
        pixels = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(folder / f"{i}.jpg", quality=90)
    with open(folder / "instances.json", "w", encoding="utf-8") as file:
        file.write('{"info": {}, "images": [')
        for i in range(num_images):
            name = f"{i:012}.jpg"
            os.link(folder / f"{i % len(SIZES)}.jpg", images / name)
            height, width = SIZES[i % len(SIZES)]
            entry = {"id": i, "file_name": name, "height": height, "width": width}
            file.write((", " if i else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for i, image in enumerate(rng.integers(0, num_images, num_instances).tolist()):
            file.write((", " if i else "") + json.dumps(_annotation(rng, i, image)))
        categories = [{"id": i, "name": str(i)} for i in range(NUM_CATEGORIES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def write_panoptic(folder, num_images):
    """Writes `panoptic.json` and `panoptic/` beside them."""
    rng = np.random.default_rng(0)
    maps = folder / "panoptic"
    maps.mkdir()
    for i in range(len(SIZES)):
        Image.new("RGB", (8, 8)).save(folder / f"{i}.png")
    categories = [
        {"id": i, "name": str(i), "isthing": int(i < NUM_CATEGORIES)}
        for i in range(NUM_CATEGORIES + NUM_STUFF)
    ]
    with open(folder / "panoptic.json", "w", encoding="utf-8") as file:
        file.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        for i in range(num_images):
            os.link(folder / f"{i % len(SIZES)}.png", maps / f"{i:012}.png")
            height, width = SIZES[i % len(SIZES)]
            entry = {"id": i, "file_name": f"{i:012}.jpg", "height": height, "width": width}
            file.write((", " if i else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for i in range(num_images):
            ids = np.arange(1, SEGMENTS_PER_IMAGE + 1) * int(rng.integers(1, 1 << 20))
            numbers = rng.integers(0, 427, (SEGMENTS_PER_IMAGE, 6))
            segments = [
                {
                    "id": segment_id,
                    "category_id": category % len(categories),
                    "area": area * 300,
                    "bbox": box,
                    "iscrowd": 0,
                }
                for segment_id, (category, area, *box) in zip(
                    ids.tolist(), numbers.tolist(), strict=True
                )
            ]
            entry = {"image_id": i, "file_name": f"{i:012}.png", "segments_info": segments}
            file.write((", " if i else "") + json.dumps(entry))
        file.write("]}")


def _annotation(rng, number, image):
    height, width = SIZES[image % len(SIZES)]
    radius = min(np.exp(rng.normal(3.1, 1.0)), 200)  # median 22, as in COCO: boxes 45 pixels wide
    points = int(rng.integers(8, 38))
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = radius * rng.uniform(0.8, 1.2, points)
    x = (rng.uniform(0, width) + radii * np.cos(angles)).clip(0, width)
    y = (rng.uniform(0, height) + radii * np.sin(angles)).clip(0, height)
    box = [float(v) for v in np.round([x.min(), y.min(), np.ptp(x), np.ptp(y)], 2)]
    return {
        "segmentation": [np.stack([x, y], 1).round(2).ravel().tolist()],
        "area": round(float(np.pi * radius**2), 4),
        "iscrowd": 0,
        "image_id": image,
        "bbox": box,
        "category_id": number % NUM_CATEGORIES,
        "id": number,
    }


class PeakMemory:
    """The largest resident and the largest anonymous memory while it is entered, in MB."""

    def __enter__(self):
        self.resident, self.anonymous = memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.05):
            resident, anonymous = memory()
            self.resident = max(self.resident, resident)
            self.anonymous = max(self.anonymous, anonymous)


def memory():
    """Resident and anonymous memory of this process, MB; the rest are pages of files."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    anonymous, file = int(values["RssAnon"]), int(values["RssFile"])
    return (anonymous + file) / 1e3, anonymous / 1e3


def measure(data):
    start, cpu, before = time.perf_counter(), time.process_time(), memory()
    with PeakMemory() as peak:
        index = load_index(data, "train")
    return index, {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mb": round(peak.resident - before[0]),
        "peak_anonymous_mb": round(peak.anonymous - before[1]),
        "kept_mb": round(memory()[0] - before[0]),
        "kept_anonymous_mb": round(memory()[1] - before[1]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=118287)
    parser.add_argument("--instances", type=int, default=860001)
    parser.add_argument("--panoptic", action="store_true")
    parser.add_argument("--folder", help="where to put the data set, by default a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = pathlib.Path(name)
        write_data_set(folder, arguments.images, arguments.instances)
        split = {"images": "images", "instances_json": "instances.json"}
        if arguments.panoptic:
            write_panoptic(folder, arguments.images)
            paths = {"panoptic_json": "panoptic.json", "panoptic_dir": "panoptic"}
            split = {**split, **paths}
        form = "coco_panoptic" if arguments.panoptic else "coco_instances"
        data = DataConfig(root=name, train={"format": form, **split})
        index, made = measure(data)
        sizes = {
            "json_mb": round(sum(path.stat().st_size for path in folder.glob("*.json")) / 1e6),
            "images": len(index),
            "instances": len(index.instance_classes),
            "segments": len(index.label_ids),
            "runs_mb": round(index.runs.nbytes / 1e6),
        }
        del index  # its memory is not that of the next
        _, loaded = measure(data)
        line = {
            "benchmark": "index",
            "cpus": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            **sizes,
            "build": made,
            "load": loaded,
            "peak_of_process_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
