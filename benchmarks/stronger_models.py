"""What deformable convolutions, group norm and a cascade cost at inference, beside the plain model.

python benchmarks/stronger_models.py [--config=configs/coco_r50_1x.yaml] [--height=800 --width=1216]
    [--rounds=3]

The models are untrained, but find as many objects as they may: most of what heads cost is theirs.
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from busy_model import build_busy_model, make_image
from measure import Stages, machine, print_table

from tf_panoptic_fpn import load_config, schema

CASCADE = {"class_agnostic_boxes": True, "cascade_ious": (0.5, 0.6, 0.7)}
DEFORMABLE = {"deformable_stages": (3, 4, 5)}
NORMED = {"norm": "group_norm", "fpn_norm": "group_norm", "mask_head_norm": "group_norm"}
VARIANTS = {
    "plain": {},
    "deformable": DEFORMABLE,
    "cascade": CASCADE,
    "all": {**DEFORMABLE, **CASCADE, **NORMED, "stride_in_1x1": False},
}


def compiled(settings, image, changes):
    """A variant's traced inference, with offsets of two pixels; returns its numbers of boxes."""
    model = build_busy_model(settings.model_copy(update=changes), image)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith("offset/bias"):
            variable.assign(rng.normal(0, 2, variable.shape))
    outputs = {**model.output, "roi_scores": model.proposals.output[1]}
    network, sizes = keras.Model(model.input, outputs), tf.constant([image.shape[:2]])
    images = {schema.IMAGES: tf.cast(image[None], tf.float32), schema.IMAGE_SIZES: sizes}
    function = tf.function(network).get_concrete_function(images)

    def run():
        found = tf.nest.map_structure(np.asarray, function(images))
        proposals = int(np.isfinite(found["roi_scores"]).sum())
        return {"proposals": proposals, "detections": int(found[schema.NUM_DETECTIONS][0])}

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="configs/coco_r50_1x.yaml")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1216)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    line = machine("tensorflow", "keras")
    settings = load_config(arguments.config).model
    image = make_image(arguments.height, arguments.width)
    functions = {
        name: compiled(settings, image, changes)
        for name, changes in VARIANTS.items()
        if settings.backbone not in ("resnet18", "resnet34") or name in ("plain", "cascade")
    }
    stages = Stages()
    found = {name: function() for name, function in functions.items()}  # warms up
    for _ in range(arguments.rounds):
        for name, function in functions.items():
            stages.run(name, function)
    figures = stages.medians()
    print_table(figures)
    plain = figures["plain"]["cpu"]
    print(
        json.dumps(
            {
                "benchmark": "stronger_models",
                **line,
                "config": arguments.config,
                "image": [*image.shape[:2]],
                "found": found,
                "seconds": {name: row["cpu"] for name, row in figures.items()},
                "ratios": {name: round(row["cpu"] / plain, 3) for name, row in figures.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
