"""How far exported models are from the model that they were made of, on sample images.

python benchmarks/exported.py --model=runs/quickstart runs/quickstart/model.onnx [...]

The images are COCO's, COCO-Stuff's and some of CamVid's validation, each alone and, where there are
three of one size, in a batch of these. The largest differences are told: of a score, between the
detections of one rank, and in pixels of a panoptic map.
"""

import argparse
import collections
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import measure
import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn import load_predictor, schema
from tf_panoptic_fpn.formats.images import read_image

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCH = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("exported", nargs="+", help="SavedModels, ONNX files, OpenVINO models")
    parser.add_argument("--model", required=True, help="what they were made of")
    parser.add_argument("--samples", type=pathlib.Path, default=ROOT.parent / "shared" / "samples")
    parser.add_argument("--images", type=int, default=20, help="of each set, at most")
    arguments = parser.parse_args()
    line = {"benchmark": "exported", **measure.machine("tensorflow"), "model": arguments.model}
    batches = batches_of(arguments.samples, arguments.images)
    predictor = load_predictor(arguments.model)
    expected = [predictor.run(images) for images in tqdm(batches, "model")]
    line["images"] = sum(len(images) == 1 for images in batches)
    line["detections"] = sum(
        int(rows[0][schema.INSTANCES][schema.NUM_DETECTIONS]) for rows in expected if len(rows) == 1
    )
    line["exported"] = {}
    for path in arguments.exported:
        exported = load_predictor(path)
        received = [exported.run(images) for images in tqdm(batches, path)]
        pairs = [
            pair
            for rows in zip(expected, received, strict=True)
            for pair in zip(*rows, strict=True)
        ]
        scores, pixels = zip(*(differences(*pair) for pair in pairs), strict=True)
        line["exported"][path] = {"score": max(scores), "pixels": max(pixels)}
    print(json.dumps(line))


def batches_of(samples, count):
    """uint8 `[B, H, W, 3]`, of 1 and of 3 images."""
    folders = ("coco_panoptic_2/images", "cocostuff_13/images", "camvid/images/val")
    by_size = collections.defaultdict(list)
    for folder in folders:
        files = [file for file in sorted((samples / folder).rglob("*")) if file.is_file()]
        for file in files[:count]:
            image = read_image(file)
            by_size[image.shape].append(image)
    alone = [image[None] for images in by_size.values() for image in images]
    return alone + [np.stack(each[:BATCH]) for each in by_size.values() if len(each) >= BATCH]


def differences(expected, received):
    """The largest of a score, and the pixels of the panoptic map."""
    scores = (row[schema.INSTANCES][schema.SCORES] for row in (expected, received))
    pixels = expected[schema.PANOPTIC_MAP] != received[schema.PANOPTIC_MAP]
    return float(np.abs(np.subtract(*scores)).max(initial=0)), int(pixels.sum())


if __name__ == "__main__":
    main()
