"""The parts of the ONNX graph around the network, against those of TensorFlow and Keras."""

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tf_panoptic_fpn import schema  # noqa: E402
from tf_panoptic_fpn.inference import predictor as module  # noqa: E402
from tf_panoptic_fpn.inference.predictor import Predictor  # noqa: E402
from tf_panoptic_fpn.onnx_graph.graph import Graph  # noqa: E402
from tf_panoptic_fpn.onnx_graph.merge import (  # noqa: E402
    Merge,
    network_size,
    resize_image,
    semantic_map,
)
from tf_panoptic_fpn.ops.panoptic_merge import panoptic_merge  # noqa: E402
from tf_panoptic_fpn.ops.resize import resize_bilinear, upsample_bilinear  # noqa: E402

THINGS, STUFF, DETECTIONS = [11, 5], [3, 8, 40], 6


def session_of(g):
    return onnxruntime.InferenceSession(g.model("test", {}).SerializeToString())


@pytest.fixture(scope="module")
def resizing():
    g = Graph()
    images, size = g.input("images", "uint8", [None] * 4), g.input("size", "int64", [2])
    g.output(resize_image(g, images, size), "resized", "float32", [None] * 4)
    return session_of(g)


@pytest.mark.parametrize(
    ("size", "new_size"),
    [
        ((97, 131), (64, 86)),
        ((90, 128), (160, 228)),
        ((360, 60), (320, 20)),
        ((7, 5), (7, 5)),
        ((1, 9), (3, 2)),
    ],
)
def test_images_are_resized_to_the_same_levels(resizing, size, new_size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    expected = Predictor.resize(tf.constant(images), tf.constant(new_size)).numpy()
    (received,) = resizing.run(None, {"images": images, "size": np.int64(new_size)})
    np.testing.assert_array_equal(received.transpose(0, 2, 3, 1), expected)


def test_sizes():
    g = Graph()
    original = g.input("original", "int64", [2])
    g.output(network_size(g, original, 800, 1333), "size", "int64", [2])
    session = session_of(g)
    for size in ((480, 640), (640, 480), (427, 640), (100, 4000), (1, 9000), (333, 500)):
        (received,) = session.run(None, {"original": np.int64(size)})
        assert (
            received.tolist() == module.network_size(tf.constant(size), 800, 1333).numpy().tolist()
        )


def test_the_semantic_map_of_a_batch():
    g = Graph()
    logits = g.input("logits", "float32", [None, 5, None, None])
    size, original = (g.input(name, "int64", [2]) for name in ("size", "original"))
    g.output(semantic_map(g, logits, 5, size, original), "map", "int32", [None] * 3)
    values = np.random.default_rng(0).normal(size=(2, 5, 8, 16)).astype(np.float32)
    values[:, 1] = values[:, 3]  # of two that are equal the first is taken
    feeds = {"logits": values, "size": np.int64([30, 50]), "original": np.int64([41, 33])}
    (received,) = session_of(g).run(None, feeds)
    x = upsample_bilinear(tf.constant(values.transpose(0, 2, 3, 1)), 4)[:, :30, :50]
    expected = tf.argmax(resize_bilinear(x, (41, 33)), axis=-1).numpy()
    assert set(np.unique(received)) == {0, 1, 2, 4}
    assert (received != expected).mean() < 1e-3


@pytest.fixture(scope="module")
def merging():
    g = Graph()
    d = DETECTIONS
    instances = {
        schema.BOXES: g.input("boxes", "float32", [None, d, 4]),
        schema.SCORES: g.input("scores", "float32", [None, d]),
        schema.CLASSES: g.input("classes", "int64", [None, d]),
        schema.MASK_PROBS: g.input("mask_probs", "float32", [None, d, 28, 28]),
    }
    stuff = g.input("stuff", "int32", [None] * 3)
    thresholds = (
        g.input("score_threshold", "float32", [], 0.5),
        g.input("overlap_threshold", "float32", [], 0.5),
        g.input("stuff_area", "int32", [], 60),
    )
    merged = Merge(g, THINGS, STUFF, d, thresholds).batch(instances, stuff)
    types = {schema.CATEGORY_IDS: "int64", schema.IS_THING: "bool", schema.SCORES: "float32"}
    types[schema.BOXES] = "float32"
    for name, value in merged.items():
        g.output(value, f"merged_{name}", types.get(name, "int32"), None)
    return session_of(g)


def make_instances(rng, count, size):
    """Boxes that overlap, leave the image's grid and touch its rim; the rest is padding."""
    start = rng.uniform(0, 0.7, (DETECTIONS, 2)) * size
    end = np.minimum(start + rng.uniform(2, 25, (DETECTIONS, 2)), size)
    valid = np.arange(DETECTIONS) < count
    scores = -np.sort(-rng.choice([0.2, 0.5, 0.7, 0.9], DETECTIONS))
    grid = np.linspace(-1, 1, 28)
    ellipse = 1.2 - (grid[:, None] ** 2 + grid**2)
    probs = np.clip(ellipse + rng.normal(0, 0.1, (DETECTIONS, 28, 28)), 0, 1)
    return {
        schema.BOXES: np.where(valid[:, None], np.hstack([start, end]), 0).astype(np.float32),
        schema.SCORES: np.where(valid, scores, 0).astype(np.float32),
        schema.CLASSES: np.where(valid, rng.integers(0, 2, DETECTIONS), -1),
        schema.MASK_PROBS: probs.astype(np.float32),
    }


def test_the_merge(merging):
    """Batches of images with all, some and no instances, against `ops.panoptic_merge`."""
    rng = np.random.default_rng(3)
    size = np.array([40, 47])
    kinds = set()
    for _ in range(4):
        rows = [make_instances(rng, count, size) for count in (DETECTIONS, 3, 0)]
        stuff = (
            rng.integers(0, 4, (3, 5, 6)).repeat(8, 1).repeat(8, 2)[:, :40, :47].astype(np.int32)
        )
        stuff[0, :20] = 2  # and one class may be left with too little
        feeds = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        names = [output.name for output in merging.get_outputs()]
        outputs = dict(zip(names, merging.run(names, {**feeds, "stuff": stuff}), strict=True))
        for i, row in enumerate(rows):
            expected = panoptic_merge(
                *(tf.constant(row[name]) for name in (schema.BOXES, schema.SCORES)),
                tf.constant(row[schema.CLASSES], tf.int32),
                tf.constant(row[schema.MASK_PROBS]),
                tf.constant(stuff[i]),
                tf.constant(THINGS, tf.int64),
                tf.constant(STUFF, tf.int64),
                stuff_area=60,
            )
            for name, value in expected.items():
                np.testing.assert_array_equal(outputs[f"merged_{name}"][i], value, err_msg=name)
            segments = int(expected[schema.NUM_SEGMENTS])
            kinds |= {
                (bool(t), int(c))
                for t, c in zip(
                    expected[schema.IS_THING][:segments],
                    expected[schema.CATEGORY_IDS][:segments],
                    strict=True,
                )
            }
    assert kinds == {(True, 11), (True, 5), (False, 3), (False, 8), (False, 40)}
