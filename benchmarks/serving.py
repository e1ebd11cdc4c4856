"""Memory and processor seconds of the served graph on one image, and the merge's part of them.

python benchmarks/serving.py [--config=coco_r50_1x] [--set KEY=VALUE]... [--height=480 --width=640]

The model has the configuration's classes and random weights from a seed. Peak memory is that of
the process above what it holds once the model is loaded and a small image has been served. The
merge is all that follows the network, PNG included. Every score passes, so that as many instances
are painted as the model may detect. `python` is the predictor that is exported, on the same file;
it writes no PNG.
"""

import argparse
import io
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import measure
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import build_model, load_config, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.export.served_graph import ServedGraph
from tf_panoptic_fpn.export.stored_model import StoredModel
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.inference.predictor import Predictor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="coco_r50_1x")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    line = {"benchmark": "serving", **measure.machine("tensorflow", "keras")}
    config = load_config(arguments.config, ["merge.score_threshold=0.0", *arguments.set])
    predictor = make_predictor(config)
    graph = ServedGraph(predictor.with_model(StoredModel(predictor.model)))
    serve = tf.function(graph.serve_bytes, [tf.TensorSpec([None], tf.string)], autograph=False)
    serve(tf.io.encode_jpeg(make_image(64, 64))[None])
    image = tf.io.encode_jpeg(make_image(arguments.height, arguments.width))[None]
    measure.forget_peak_memory()
    before = measure.peak_memory()
    outputs = serve(image)
    peak = measure.peak_memory() - before
    segments = int(outputs[schema.NUM_SEGMENTS][0])
    del outputs
    stages = run_stages(predictor, graph, serve, image, arguments.runs)
    whole, python, merge = map(stages.least, ("whole", "python", "merge and PNG"))
    line |= {
        "config": arguments.config,
        "set": arguments.set,
        "image": [arguments.height, arguments.width],
        "semantic_classes": config.model.num_stuff_classes + 1,
        "segments": segments,
        "peak_mb_above_the_model": peak,
        "merge_and_png_share": round(merge / whole, 6),  # of the fewest processor seconds, as below
        "whole_to_python": round(whole / python, 6),
    }
    measure.report(line, stages)


def make_predictor(config):
    things, stuff = config.model.num_thing_classes, config.model.num_stuff_classes
    table = CategoryTable(tuple(Category(i + 1, str(i), i < things) for i in range(things + stuff)))
    keras.utils.set_random_seed(0)
    return Predictor(build_model(config.model), table, config.merge, config.data.validation)


def make_image(height, width):
    """Colours that change slowly, under noise: uint8 `[H, W, 3]`."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (1, 12, 16, 3)).astype(np.float32)
    image = tf.image.resize(coarse, (height, width))[0]
    noise = rng.integers(-12, 12, (height, width, 1), np.int8)
    return tf.cast(tf.clip_by_value(image + tf.cast(noise, tf.float32), 0, 255), tf.uint8)


def run_stages(predictor, graph, serve, image, runs):
    """`Stages` of the served graph, of the predictor in Python on the same file, of the network,
    and of what follows it; the four in turn."""
    pixels = tf.io.decode_jpeg(image[0])
    original = tf.shape(pixels)[:2]
    size = predictor.network_size(original)
    x = predictor.resize(pixels[None], size)
    network = tf.function(
        lambda: predictor.model({schema.IMAGES: x, schema.IMAGE_SIZES: size[None]}, training=False)
    )
    merge = tf.function(lambda o: graph.with_png(predictor.merge_images(o, size, original)))
    outputs = network()
    calls = {
        "whole": lambda: serve(image),
        "python": lambda: predictor.run(read_image(io.BytesIO(image.numpy()[0]))[None]),
        "network": network,
        "merge and PNG": lambda: merge(outputs),
    }
    stages = measure.Stages()
    for call in calls.values():
        call()  # traces
    for _ in range(runs):
        for name, call in calls.items():
            stages.run(name, call)
    return stages


if __name__ == "__main__":
    main()
