"""Parameters, multiply-adds and processor seconds of backbones, on one image.

python benchmarks/backbones.py [--size=512] [--repeats=3] NAME ...

A line for each name of `model.backbone`; untrained weights, the median of the runs, compiled as a
graph without XLA.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.analysis.costs import WHOLE, count_costs
from tf_panoptic_fpn.backbones.make_backbone import make_backbone
from tf_panoptic_fpn.config import ModelConfig


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.names:
        print(json.dumps(measure(name, arguments.size, arguments.repeats)), flush=True)


def measure(name, size, repeats):
    backbone = make_backbone(name, ModelConfig().model_dump())
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, backbone(inputs))
    costs = count_costs(model, (size, size))[WHOLE]
    image = tf.constant(np.random.default_rng(0).normal(size=(1, size, size, 3)), tf.float32)
    run = tf.function(lambda x: model(x, training=False))
    run(image)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        tf.nest.map_structure(np.asarray, run(image))
        seconds.append(time.process_time() - start)
    return {
        "benchmark": "backbones",
        "backbone": name,
        "size": size,
        "parameters": costs.parameters,
        "multiply_adds": costs.multiply_adds,
        "processor_seconds": round(statistics.median(seconds), 6),
    }


if __name__ == "__main__":
    main()
