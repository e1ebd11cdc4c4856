"""Seconds an image of the whole served graph, and of its parts, as ratios of one run.

python benchmarks/inference.py [--config=configs/camvid.yaml] [--height=360 --width=480]
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import build_model, load_config, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.inference.predictor import Predictor


def median_seconds(function, *arguments, runs=5):
    """Median time of a call, after two that warm up."""
    seconds = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        tf.nest.map_structure(np.asarray, function(*arguments))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="configs/camvid.yaml")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=480)
    arguments = parser.parse_args()

    config = load_config(arguments.config)
    model = build_model(config.model)
    things, stuff = config.model.num_thing_classes, config.model.num_stuff_classes
    categories = CategoryTable(
        tuple(Category(i + 1, str(i), i < things) for i in range(things + stuff))
    )
    predictor = Predictor(model, categories, config.merge, config.data.validation)
    image = np.random.default_rng(0).integers(0, 255, (arguments.height, arguments.width, 3))
    image = image.astype(np.uint8)
    size = predictor.network_size(tf.constant(image.shape[:2]))
    resized = predictor.resize(image[None], size)

    whole = median_seconds(predictor, image)
    dense = tf.function(lambda x: model.dense_outputs(x)[schema.SEMANTIC_LOGITS])
    parts = {
        "resize": median_seconds(tf.function(predictor.resize), tf.constant(image[None]), size),
        "dense": median_seconds(dense, resized),
        "model": median_seconds(tf.function(lambda x: model(x)), resized),
    }
    line = {
        "benchmark": "inference",
        "config": arguments.config,
        "image": list(image.shape[:2]),
        "seconds": round(whole, 4),
        **{f"{name}_share": round(seconds / whole, 3) for name, seconds in parts.items()},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
