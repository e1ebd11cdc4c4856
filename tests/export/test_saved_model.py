"""The endpoints of the SavedModel."""

import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.export.served_graph import ServedGraph
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.saved_model import SavedModelPredictor


class CountingModel:
    """One stuff class everywhere; counts how often it becomes part of a graph."""

    def __init__(self):
        self.config = {"tasks": ("semantic",), "semantic_things": "other", "max_detections": 3}
        self.calls = 0
        self.weights = []
        self._flatten_layers = list  # none

    def __call__(self, inputs, training):
        self.calls += 1
        shape = tf.shape(inputs[schema.IMAGES])[:3] // [1, 4, 4]
        return {schema.SEMANTIC_LOGITS: tf.one_hot(tf.ones(shape, tf.int32), 2)}


CATEGORIES = CategoryTable((Category(1, "thing", True), Category(7, "stuff", False)))
SPLIT = SplitConfig(short_sides=(32,), max_long_side=64)


def test_prediction_and_both_endpoints_trace_the_model_once():
    model = CountingModel()
    predictor = Predictor(model, CATEGORIES, MergeConfig(stuff_area=64), SPLIT)
    image = tf.zeros([32, 64, 3], tf.uint8)
    (predicted,) = predictor.run(image[None].numpy())
    graph = ServedGraph(predictor)
    by_images = tf.function(
        graph.serve_images, [tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False
    )
    by_bytes = tf.function(graph.serve_bytes, [tf.TensorSpec([None], tf.string)], autograph=False)
    encoded = tf.io.encode_png(image)
    for served in (by_images(image[None]), by_bytes(encoded[None])):
        assert (served[schema.PANOPTIC_MAP].numpy() == predicted[schema.PANOPTIC_MAP]).all()
        assert served[schema.CATEGORY_IDS].numpy()[0, 0] == 7
    assert model.calls == 1


def test_the_merge_that_is_in_the_graph_is_told(tmp_path):
    model = CountingModel()
    model.config["semantic_things"] = "all"
    merge = MergeConfig(score_threshold=0.25, overlap_threshold=0.75, stuff_area=64)
    predictor = Predictor(model, CATEGORIES, merge, SPLIT)
    export_saved_model(predictor, tmp_path / "1")
    loaded = SavedModelPredictor(tmp_path / "1")
    assert loaded.merge == merge
    assert loaded.categories == predictor.categories
