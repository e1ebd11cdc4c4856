"""How busy the model is while a data set is evaluated, and what each stage costs alone.

python benchmarks/evaluate.py --samples=shared/samples/coco_instances [--images=24 --short-side=320]

The ground truth is made of the instances, in front of bands of stuff. The model is untrained and
keeps 100 detections an image: as much to score as any.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from pycocotools.coco import COCO

from tf_panoptic_fpn import build_model, load_config
from tf_panoptic_fpn.config import SplitConfig
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.evaluation.evaluator import evaluate
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.inference.predictor import Predictor

NUM_STUFF = 53


def write_ground_truth(coco, num_images, folder):
    """Writes `panoptic.json` and its PNGs: the instances, small ones in front, over four bands."""
    rng = np.random.default_rng(0)
    images = [image for image in coco.dataset["images"] if coco.getAnnIds(image["id"])][:num_images]
    annotations = []
    for image in images:
        size = (image["height"], image["width"])
        bands = np.arange(size[0]) * 4 // size[0] + 1
        ids = np.broadcast_to(bands[:, None], size).astype(np.int32)
        stuff = rng.permutation(NUM_STUFF)[:4] + 1000
        category_ids = dict(enumerate(stuff.tolist(), start=1))
        instances = coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=False))
        for instance in sorted(instances, key=lambda instance: -instance["area"]):
            segment_id = len(category_ids) + 1
            category_ids[segment_id] = instance["category_id"]
            ids = np.where(coco.annToMask(instance), segment_id, ids)
        write_panoptic_png(ids, folder / f"{image['id']}.png")
        shown = np.unique(ids).tolist()
        segments = [{"id": i, "category_id": category_ids[i], "iscrowd": 0} for i in shown]
        annotations.append(
            {"image_id": image["id"], "file_name": f"{image['id']}.png", "segments_info": segments}
        )
    things = [{**category, "isthing": 1} for category in coco.dataset["categories"]]
    stuff = [{"id": 1000 + i, "name": f"stuff {i}", "isthing": 0} for i in range(NUM_STUFF)]
    tree = {"images": images, "annotations": annotations, "categories": things + stuff}
    (folder / "panoptic.json").write_text(json.dumps(tree), encoding="utf-8")


def seconds_of(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", required=True, help="folder with images/ and instances.json")
    parser.add_argument("--config", default="configs/coco_r50_1x.yaml")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--short-side", type=int, default=320)
    arguments = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp())
    samples = pathlib.Path(arguments.samples)
    with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints as it reads
        coco = COCO(samples / "instances.json")
    write_ground_truth(coco, arguments.images, folder)
    split = read_coco_panoptic(samples / "images", folder / "panoptic.json", folder)
    things = len(split.categories.things)
    classes = [f"model.num_thing_classes={things}", f"model.num_stuff_classes={NUM_STUFF}"]
    config = load_config(arguments.config, [*classes, "model.score_threshold=0.0"])
    keras.utils.set_random_seed(0)
    predictor = Predictor(
        build_model(config.model),
        split.categories,
        config.merge,
        SplitConfig(short_sides=(arguments.short_side,)),
    )

    predictor(next(evaluation_samples(split))[1])  # traces
    busy, memory = [], []

    def timed(image):
        seconds, output = seconds_of(lambda: predictor(image))
        busy.append(seconds)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return output

    whole_seconds, _ = seconds_of(
        lambda: evaluate(timed, evaluation_samples(split), split.categories, folder / "b")
    )
    read_seconds, read = seconds_of(lambda: list(evaluation_samples(split)))
    model_seconds, outputs = seconds_of(lambda: [predictor(image) for _, image, _ in read])
    kept = {id(image): output for (_, image, _), output in zip(read, outputs, strict=True)}
    score_seconds, _ = seconds_of(
        lambda: evaluate(lambda image: kept[id(image)], read, split.categories, folder / "a")
    )
    line = {
        "benchmark": "evaluate",
        "config": arguments.config,
        "images": len(split.images),
        "seconds_per_image": round(whole_seconds / len(split.images), 4),
        "model_busy_share": round(sum(busy) / whole_seconds, 3),
        "read_alone_share": round(read_seconds / whole_seconds, 3),
        "model_alone_share": round(model_seconds / whole_seconds, 3),
        "score_alone_share": round(score_seconds / whole_seconds, 3),
        "peak_memory_growth_mb": round((memory[-1] - memory[len(memory) // 3]) / 1024, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
