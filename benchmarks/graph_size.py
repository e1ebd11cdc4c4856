"""Nodes of the graphs of a train step, of prediction and of the served model, and trace seconds.

python benchmarks/graph_size.py [--config=quickstart]

Nodes of nested functions count once each, with the operation that calls them. A part is the file
whose code made the node, "gradient" what TensorFlow made for the backward pass.
"""

import argparse
import collections
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

import tf_panoptic_fpn
from tf_panoptic_fpn import build_model, load_config, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.distribution.replicas import build_strategy
from tf_panoptic_fpn.export.served_graph import ServedGraph
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.step import make_train_step

PACKAGE = pathlib.Path(tf_panoptic_fpn.__file__).parent
MASK = [schema.GT_MASK_SIZE] * 2
BATCH_SPEC = {  # of the training pipeline
    schema.IMAGES: tf.TensorSpec([None, None, None, 3], tf.float32),
    schema.IMAGE_SIZES: tf.TensorSpec([None, 2], tf.int32),
    schema.IMAGE_SEEDS: tf.TensorSpec([None], tf.int32),
    schema.GT_BOXES: tf.TensorSpec([None, None, 4], tf.float32),
    schema.GT_CLASSES: tf.TensorSpec([None, None], tf.int32),
    schema.GT_IS_CROWD: tf.TensorSpec([None, None], tf.bool),
    schema.GT_MASKS: tf.TensorSpec([None, None, *MASK], tf.uint8),
    schema.SEMANTIC: tf.TensorSpec([None, None, None], tf.int32),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="quickstart")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    line = {"benchmark": "graph_size", "config": arguments.config}
    predictor = make_predictor(config)
    served = tf.function(
        ServedGraph(predictor).serve_bytes, [tf.TensorSpec([None], tf.string)], autograph=False
    )
    for name, function in (
        ("train_step", train_step(config)),
        ("predict", predictor.traced),
        ("served", served),
    ):
        start = time.process_time()
        graph = function.get_concrete_function().graph
        line[f"{name}_trace_seconds"] = round(time.process_time() - start, 2)
        parts = count_nodes(graph)
        line[f"{name}_nodes"] = sum(parts.values())
        line[f"{name}_parts"] = dict(parts.most_common())
    print(json.dumps(line))


def train_step(config):
    strategy = build_strategy(1)
    with strategy.scope():
        model = build_model(config.model)
        optimizer = build_optimizer(config.optimizer)
        optimizer.build(model.trainable_variables)
    return make_train_step(model, optimizer, strategy, BATCH_SPEC, config.optimizer.clip_norm)


def make_predictor(config):
    things, stuff = config.model.num_thing_classes, config.model.num_stuff_classes
    categories = CategoryTable(
        tuple(Category(i + 1, str(i), i < things) for i in range(things + stuff))
    )
    model = build_model(config.model)
    return Predictor(model, categories, config.merge, config.data.validation)


def count_nodes(graph):
    """Counter of nodes by part."""
    functions = {f.signature.name: f.node_def for f in graph.as_graph_def().library.function}
    parts = collections.Counter()

    def count(node):
        """The node, and those of the functions that it is the first to call."""
        called = [a.func.name for a in node.attr.values() if a.HasField("func")]
        called += [f.name for a in node.attr.values() for f in a.list.func]
        bodies = [functions.pop(name) for name in called if name in functions]
        return 1 + sum(count(inner) for body in bodies for inner in body)

    for operation in graph.get_operations():
        parts[part_of(operation)] += count(operation.node_def)
    parts["other functions"] += sum(len(body) for body in functions.values())
    return parts


def part_of(operation):
    files = [pathlib.Path(frame.filename) for frame in operation.traceback]
    own = [file.relative_to(PACKAGE).as_posix() for file in files if PACKAGE in file.parents]
    is_gradient = operation.name.startswith("gradient_tape") and own[-1] == "training/gradients.py"
    return "gradient" if is_gradient else own[-1] if own else "none"


if __name__ == "__main__":
    main()
