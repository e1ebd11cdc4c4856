"""What deformable convolutions, group norm and a cascade cost at inference, beside the plain model.

python benchmarks/stronger_models.py [--config=configs/coco_r50_1x.yaml] [--height=800 --width=1216]
    [--rounds=3]
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from measure import Stages, machine, print_table

from tf_panoptic_fpn import build_model, load_config

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
    """A variant's traced inference, with every detection and offsets of two pixels."""
    keras.utils.set_random_seed(0)
    model = build_model(settings.model_copy(update={"score_threshold": 0.0, **changes}))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith("offset/bias"):
            variable.assign(rng.normal(0, 2, variable.shape))
    function = tf.function(lambda x: model(x)).get_concrete_function(image)
    return lambda: tf.nest.map_structure(np.asarray, function(image))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="configs/coco_r50_1x.yaml")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1216)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    line = machine("tensorflow", "keras")
    settings = load_config(arguments.config).model
    size = (1, arguments.height, arguments.width, 3)
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, size), tf.float32)
    functions = {
        name: compiled(settings, image, changes)
        for name, changes in VARIANTS.items()
        if settings.backbone not in ("resnet18", "resnet34") or name in ("plain", "cascade")
    }
    stages = Stages()
    for function in functions.values():
        function()  # warms up
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
                "image": size[1:3],
                "seconds": {name: row["cpu"] for name, row in figures.items()},
                "ratios": {name: round(row["cpu"] / plain, 3) for name, row in figures.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
