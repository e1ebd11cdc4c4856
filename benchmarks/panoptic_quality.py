"""Time of panoptic quality as a ratio of panopticapi's way of counting, and its memory.

python benchmarks/panoptic_quality.py [--images=500] [--samples=../shared/samples]

`decoded`: one thread, on maps in memory, against the same without decoding; `files`: all cores,
from PNGs, against a process for each core that decodes with Pillow; `peak_mib`: of the main process
and of the largest worker, TensorFlow's import and the JSON included.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import panopticapi_rules  # of the tests
from PIL import Image

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.evaluation.panoptic_files import evaluate_panoptic_files
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png, write_panoptic_png
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality

SAMPLES = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "samples"
HEIGHT, WIDTH = 480, 640
NUM_FILES = 100  # distinct images; longer lists repeat them
ROUNDS = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--samples", type=pathlib.Path, default=SAMPLES)
    parser.add_argument("--peak-of", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        evaluate_panoptic_files(arguments.peak_of / "gt.json", arguments.peak_of / "pred.json")
        status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
        own = int(status.partition("VmHWM:")[2].split()[0])
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(json.dumps([own // 1024, worker // 1024]))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        categories, images = write_images(
            arguments.samples, folder, min(arguments.images, NUM_FILES)
        )
        table = CategoryTable.from_coco(categories)
        category_ids = {category["id"] for category in categories}
        write_json(folder, categories, images, arguments.images)
        line = {
            "benchmark": "panoptic_quality",
            "images": arguments.images,
            "segments_per_image": round(statistics.mean(len(gt) for gt, _ in images), 1),
            "cores": os.cpu_count(),
            "decoded_ratio": round(decoded_ratio(folder, table, category_ids, images), 3),
            **files_ratio(folder, category_ids, arguments.images),
        }
        for factor in (1, 4):
            write_json(folder, categories, images, factor * arguments.images)
            command = [sys.executable, __file__, "--peak-of", folder]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, encoding="utf-8"
            )
            line[f"peak_mib_of_{factor * arguments.images}"] = json.loads(done.stdout)
    print(json.dumps(line))


def write_images(samples, folder, count):
    """Writes PNGs of ground truth and predictions, made from the sample maps.

    Returns:
        `(categories, images)`: the COCO list, and the pair of segment lists of each image.
    """
    tree = json.loads((samples / "cocostuff_13" / "panoptic.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    (folder / "gt").mkdir()
    (folder / "pred").mkdir()
    images = []
    while len(images) < count:
        annotation = tree["annotations"][rng.integers(len(tree["annotations"]))]
        ids = read_panoptic_png(samples / "cocostuff_13" / "panoptic" / annotation["file_name"])
        gt_ids, pred_ids = warp_pair(ids, rng)
        category_of = {s["id"]: s["category_id"] for s in annotation["segments_info"]}
        # As COCO's, each id stands for a colour.
        colors = rng.choice((1 << 24) - 1, len(category_of), replace=False) + 1
        color_of = {0: 0, **dict(zip(category_of, colors.tolist(), strict=True))}
        lists = []
        for kind, ids in (("gt", gt_ids), ("pred", pred_ids)):
            found, where, areas = np.unique(ids, return_inverse=True, return_counts=True)
            painted = np.array([color_of[i] for i in found.tolist()])
            write_panoptic_png(
                painted[where.reshape(ids.shape)], folder / kind / f"{len(images)}.png"
            )
            lists.append(
                [
                    {"id": int(c), "category_id": category_of[i], "iscrowd": 0, "area": int(area)}
                    for i, c, area in zip(found.tolist(), painted, areas, strict=True)
                    if i
                ]
            )
        images.append(tuple(lists))
    return tree["categories"], images


def warp_pair(ids, rng):
    """A part of a map at full size, mirrored by chance, and the same with other borders."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    scale = rng.uniform(0.6, 1.0)
    top, left = (1 - scale) * rng.random(2)
    if rng.random() < 0.5:
        x = WIDTH - 1 - x
    phase, length = rng.uniform(0, 6, 2), rng.uniform(20, 60)
    waves = 3 * np.sin(x / length + phase[0]), 3 * np.sin(y / length + phase[1])
    maps = []
    for offset_y, offset_x in ((0, 0), waves):
        rows = np.clip((y + offset_y) / HEIGHT, 0, 0.999) * scale + top
        columns = np.clip((x + offset_x) / WIDTH, 0, 0.999) * scale + left
        maps.append(ids[(rows * ids.shape[0]).astype(int), (columns * ids.shape[1]).astype(int)])
    return maps


def write_json(folder, categories, images, count):
    for kind, index in (("gt", 0), ("pred", 1)):
        annotations = [
            {
                "image_id": i,
                "file_name": f"{i % len(images)}.png",
                "segments_info": images[i % len(images)][index],
            }
            for i in range(count)
        ]
        tree = {"categories": categories, "annotations": annotations}
        (folder / f"{kind}.json").write_text(json.dumps(tree), encoding="utf-8")


def decoded_ratio(folder, table, category_ids, images):
    """Median of the ratios of some rounds, one thread each."""
    rgb = [
        [np.asarray(Image.open(folder / kind / f"{i}.png")) for kind in ("gt", "pred")]
        for i in range(len(images))
    ]
    ids = [[panopticapi_rules.to_ids(image).astype(np.int32) for image in pair] for pair in rgb]
    ratios = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for (gt_rgb, pred_rgb), (gt, pred) in zip(rgb, images, strict=True):
            panopticapi_rules.image_counts(gt_rgb, gt, pred_rgb, pred, category_ids)
        middle = time.perf_counter()
        quality = PanopticQuality(table, strict=False)
        for (gt_ids, pred_ids), (gt, pred) in zip(ids, images, strict=True):
            quality.update(gt_ids, gt, pred_ids, pred)
        ratios.append((time.perf_counter() - middle) / (middle - start))
    return statistics.median(ratios)


def files_ratio(folder, category_ids, count):
    """Medians of the ratios of some rounds: of the time that passes, and of the cores' time."""
    wall_ratios, cpu_ratios, seconds = [], [], []
    for _ in range(ROUNDS):
        clock = [(time.perf_counter(), cpu_seconds())]
        result = evaluate_panoptic_files(folder / "gt.json", folder / "pred.json")
        clock.append((time.perf_counter(), cpu_seconds()))
        totals = panopticapi_rules.evaluate_files(read_pairs(folder), category_ids)
        clock.append((time.perf_counter(), cpu_seconds()))
        (wall, cpu), (other_wall, other_cpu) = np.diff(clock, axis=0)
        wall_ratios.append(wall / other_wall)
        cpu_ratios.append(cpu / other_cpu)
        seconds.append(wall)
    pq = panopticapi_rules.averages(totals, category_ids)[0]
    assert abs(result["All"]["PQ"] - pq) < 1e-9
    return {
        "files_ratio": round(statistics.median(wall_ratios), 3),
        "files_cpu_ratio": round(statistics.median(cpu_ratios), 3),
        "files_images_per_second": round(count / min(seconds)),
    }


def cpu_seconds():
    """Of this process and of the workers that have ended."""
    return sum(os.times()[:4])


def read_pairs(folder):
    trees = [
        json.loads((folder / f"{kind}.json").read_text(encoding="utf-8")) for kind in ("gt", "pred")
    ]
    return [
        (
            folder / "gt" / gt["file_name"],
            gt["segments_info"],
            folder / "pred" / pred["file_name"],
            pred["segments_info"],
        )
        for gt, pred in zip(*(tree["annotations"] for tree in trees), strict=True)
    ]


if __name__ == "__main__":
    main()
