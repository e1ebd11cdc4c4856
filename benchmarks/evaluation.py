"""Time of AP from COCO files beside pycocotools, and of PQ from PNGs beside panopticapi's way.

python benchmarks/evaluation.py [--images=5000 --results=100 --rounds=1] [--metrics bbox segm ...]

A table by stage on stderr and one JSON line. The case has the size of COCO val: 7.3 objects an
image in 80 classes, and results of which half lie on objects; some hundred distinct images repeat.
Both sides start from the files and are interleaved; `ratios` are of processor seconds, and the
figures of both must be the same. The peer of boundary AP is pycocotools with the boundary IoU of
each pair, and that of PQ panopticapi's rules at its cost, both of the tests.
"""

import argparse
import contextlib
import io
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

import coco_rules  # of the tests
import measure
import numpy as np
import panoptic_quality
import panopticapi_rules  # of the tests
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_panoptic_fpn.evaluation.instance_files import (
    count_doubled,
    read_ground_truth,
    read_results,
)
from tf_panoptic_fpn.evaluation.panoptic_files import evaluate_panoptic_files
from tf_panoptic_fpn.metrics.coco_ap import METRICS, SIZE_RECALLS, coco_ap

IOU_TYPES = ("bbox", "segm", "boundary")
HEIGHT, WIDTH = 480, 640
NUM_CLASSES = 80
MEAN_OBJECTS = 7.3
NUM_DISTINCT = 250  # images; longer lists repeat them


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--results", type=int, default=100, help="of an image")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--metrics", nargs="+", choices=(*IOU_TYPES, "pq"), default=["bbox"])
    parser.add_argument("--samples", type=pathlib.Path, default=panoptic_quality.SAMPLES)
    arguments = parser.parse_args()
    line = {
        "benchmark": "evaluation",
        **measure.machine("numpy", "pycocotools", "pillow", "kornia-rs"),
        "images": arguments.images,
        "rounds": arguments.rounds,
    }
    stages = measure.Stages()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        iou_types = [name for name in arguments.metrics if name != "pq"]
        if iou_types:
            line |= write_instances(folder, arguments.images, arguments.results)
        if "pq" in arguments.metrics:
            category_ids = write_panoptic(folder, arguments.samples, arguments.images)
        for _ in range(arguments.rounds):
            for iou_type in iou_types:
                compare_ap(folder, iou_type, stages)
            if "pq" in arguments.metrics:
                compare_pq(folder, category_ids, stages)
    line["stages"] = stages.medians()
    line["ratios"] = {name: ratio(line["stages"], name) for name in arguments.metrics}
    measure.print_table(line["stages"])
    print(json.dumps(line))


def ratio(stages, metric):
    """Processor seconds as a share of the peer's."""
    peer = sum(row["cpu"] for name, row in stages.items() if name.startswith(f"{metric}: peer"))
    both = sum(row["cpu"] for name, row in stages.items() if name.startswith(f"{metric}: "))
    return round((both - peer) / peer, 3) if peer else None


def compare_ap(folder, iou_type, stages):
    """From the files to the figures, with this package and with pycocotools."""
    gt_json, results_json = folder / "instances.json", folder / "results.json"
    needs_masks = iou_type != "bbox"

    def read():
        ground_truth = read_ground_truth(gt_json, needs_masks)
        return ground_truth, read_results(results_json, ground_truth, needs_masks)

    def score(ground_truth, results):
        count_doubled(results)
        return coco_ap(ground_truth, results, iou_type)

    def peer_read():
        ground_truth = COCO(gt_json)
        results = json.loads(results_json.read_text(encoding="utf-8"))
        if needs_masks:  # or sizes would be those of the boxes
            results = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
        return ground_truth, ground_truth.loadRes(results)

    def peer_score(ground_truth, results):
        evaluator = coco_rules.BoundaryCOCOeval if iou_type == "boundary" else COCOeval
        evaluation = evaluator(ground_truth, results, "segm" if needs_masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats.tolist()

    inputs = stages.run(f"{iou_type}: read", read)
    figures = stages.run(f"{iou_type}: score", score, *inputs)
    del inputs
    with contextlib.redirect_stdout(io.StringIO()):
        inputs = stages.run(f"{iou_type}: peer reads", peer_read)
        expected = stages.run(f"{iou_type}: peer scores", peer_score, *inputs)
    assert [figures[name] for name in METRICS + SIZE_RECALLS] == expected


def compare_pq(folder, category_ids, stages):
    """From the files to the figures, on all cores both."""
    result = stages.run(
        "pq: score", evaluate_panoptic_files, folder / "gt.json", folder / "pred.json"
    )
    pairs = panoptic_quality.read_pairs(folder)
    totals = stages.run("pq: peer scores", panopticapi_rules.evaluate_files, pairs, category_ids)
    pq = panopticapi_rules.averages(totals, category_ids)[0]
    assert abs(result["All"]["PQ"] - pq) < 1e-9


def write_panoptic(folder, samples, count):
    distinct = min(count, panoptic_quality.NUM_FILES)
    categories, images = panoptic_quality.write_images(samples, folder, distinct)
    panoptic_quality.write_json(folder, categories, images, count)
    return {category["id"] for category in categories}


def write_instances(folder, num_images, num_results):
    """Writes `instances.json` and `results.json`; returns what the line says of them."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, NUM_CLASSES + 1) ** 0.9
    shares /= shares.sum()
    distinct = [draw_image(rng, shares, num_results) for _ in range(min(num_images, NUM_DISTINCT))]
    images, annotations, results = [], [], []
    for image_id in range(num_images):
        images.append({"id": image_id, "height": HEIGHT, "width": WIDTH})
        objects, found = distinct[image_id % len(distinct)]
        for entry in objects:
            annotations.append({**entry, "id": len(annotations) + 1, "image_id": image_id})
        results += [{**entry, "image_id": image_id} for entry in found]
    categories = [{"id": c + 1, "name": f"class {c}"} for c in range(NUM_CLASSES)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(tree), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return {"objects": len(annotations), "results": len(results)}


def draw_image(rng, shares, num_results):
    """Objects of a few classes, as polygons, and results, as run lengths; few are crowds."""
    few = rng.choice(NUM_CLASSES, rng.integers(1, 5), p=shares)
    shapes = [(draw_shape(rng), int(rng.choice(few))) for _ in range(rng.poisson(MEAN_OBJECTS))]
    objects = []
    for shape, category in shapes:
        polygon = outline(*shape)
        rle = mask_api.frPyObjects([polygon], HEIGHT, WIDTH)[0]
        is_crowd = int(rng.random() < 0.01)
        crowd = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
        objects.append(
            {
                "category_id": category + 1,
                "iscrowd": is_crowd,
                "area": float(mask_api.area(rle)),
                "bbox": mask_api.toBbox(rle).tolist(),
                "segmentation": crowd if is_crowd else [polygon],
            }
        )
    polygons, found = [], []
    for _ in range(num_results):
        if shapes and rng.random() < 0.5:
            (x, y, width, height, phase), category = shapes[rng.integers(len(shapes))]
            noise = rng.choice([0.03, 0.1, 0.3])
            dx, dy, grown, raised, turned = rng.normal(0, noise, 5)
            shape = x + width * dx, y + height * dy, width * np.exp(grown)
            polygons.append(outline(*shape, height * np.exp(raised), phase + turned))
            score = np.clip(rng.normal(1 - 2 * noise, 0.2), 0.01, 1)
            is_right = rng.random() < 0.85
            category = category if is_right else int(rng.choice(NUM_CLASSES, p=shares))
        else:
            polygons.append(outline(*draw_shape(rng)))
            category, score = int(rng.choice(NUM_CLASSES, p=shares)), rng.beta(1, 6)
        found.append({"category_id": category + 1, "score": round(float(score), 3)})
    rles = mask_api.frPyObjects(polygons, HEIGHT, WIDTH)
    boxes = mask_api.toBbox(rles).tolist()
    for entry, rle, box in zip(found, rles, boxes, strict=True):
        mask = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
        entry |= {"bbox": box, "segmentation": mask}
    return objects, found


def draw_shape(rng):
    """Centre x, y, width, height and phase of the waves of an outline that meets the image."""
    width, height = np.exp(rng.normal(4.2, 0.9, 2)).clip(6, 500)
    return rng.uniform(5, WIDTH - 5), rng.uniform(5, HEIGHT - 5), width, height, rng.uniform(0, 6)


def outline(x, y, width, height, phase):
    """A wavy ellipse of 24 points, cut at the edges of the image."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = 0.5 + 0.075 * np.sin(3 * angles + phase) + 0.05 * np.sin(7 * angles + 2 * phase)
    xs = (np.clip(x, 3, WIDTH - 3) + width * radius * np.cos(angles)).clip(0, WIDTH)
    ys = (np.clip(y, 3, HEIGHT - 3) + height * radius * np.sin(angles)).clip(0, HEIGHT)
    return np.stack([xs, ys], axis=1).round(2).ravel().tolist()


if __name__ == "__main__":
    main()
