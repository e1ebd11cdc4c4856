"""Runs of the variants from the configuration to the served graph."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn import build_model, load_config, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
from tf_panoptic_fpn.evaluation.evaluator import evaluate
from tf_panoptic_fpn.evaluation.report import format_table
from tf_panoptic_fpn.export.served_graph import PANOPTIC_PNG, ServedGraph
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.formats.records import ImageRecord, Segment
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.loop import train
from tf_panoptic_fpn.weights.initial_weights import load_initial_weights
from tf_panoptic_fpn.workdir import Workdir

pytestmark = pytest.mark.usefixtures("short_backbones")

TINY = pathlib.Path(__file__).parents[1] / "tiny.yaml"
DETECTIONS = {
    "detection_boxes",
    "detection_scores",
    "detection_category_ids",
    "detection_mask_probs",
    "num_detections",
}


# A model this young paints nothing above a threshold.
PAINT_ALL = ["merge.score_threshold=0.0", "merge.stuff_area=1"]
# Determinism, once on, stays on in the process of the tests, where XLA lacks some kernels for it.
IN_PROCESS = [*PAINT_ALL, "train.deterministic=false"]


def untrained_predictor(*overrides):
    config = load_config(TINY, [*overrides, *PAINT_ALL])
    ids = range(1, 9)
    table = CategoryTable(tuple(Category(i, f"category {i}", i % 2 == 0) for i in ids))
    return Predictor(build_model(config.model), table, config.merge, config.data.validation)


def noise_image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)


def evaluate_noise(predictor):
    """Scores a predictor on one image of two segments."""
    ids = np.ones((64, 96), np.int32)
    ids[:20, :30] = 2
    segments = (Segment(1, 3), Segment(2, 4))
    record = ImageRecord(1, "1.jpg", "1.jpg", "1.png", 64, 96, segments)
    samples = [(record, noise_image(), ids)]
    return evaluate(predictor, samples, predictor.categories)


def segments(prediction):
    count = int(prediction[schema.NUM_SEGMENTS])
    return prediction[schema.IS_THING][:count]


def test_mask_rcnn_alone():
    predictor = untrained_predictor("model.tasks=[instance]")
    results = evaluate_noise(predictor)
    assert "semantic" not in results
    assert {"box_ap", "mask_ap"} <= set(results)
    assert results["panoptic"]["Stuff"]["PQ"] == 0
    assert "Instances" in format_table(results)
    assert "Semantic" not in format_table(results)
    (prediction,) = predictor.run(noise_image()[None])
    assert schema.SEMANTIC_MAP not in prediction
    assert len(segments(prediction)) > 0
    assert segments(prediction).all()
    served = ServedGraph(predictor).serve_images(tf.constant(noise_image()[None]))
    assert set(served) >= {*DETECTIONS, PANOPTIC_PNG, schema.PANOPTIC_MAP}
    assert schema.SEMANTIC_MAP not in served


def test_the_merge_discards_every_thing_of_the_semantic_branch():
    predictor = untrained_predictor("model.fpn_groups=2", "model.semantic_things=all")
    results = evaluate_noise(predictor)
    assert {"box_ap", "mask_ap", "semantic"} <= set(results)
    things, stuff = predictor.categories.things, predictor.categories.stuff
    names = [category.name for category in (*things, *stuff)]
    assert list(results["semantic"]["per_class"]) == names
    (prediction,) = predictor.run(noise_image()[None])
    semantic, panoptic = prediction[schema.SEMANTIC_MAP], prediction[schema.PANOPTIC_MAP]
    assert (panoptic > 0)[semantic >= 4].all()
    is_thing = np.append(False, prediction[schema.IS_THING])[panoptic]
    np.testing.assert_array_equal((panoptic > 0) & (semantic < 4), is_thing & (semantic < 4))


@pytest.mark.slow
def test_semantic_fpn_alone_with_every_class(tmp_path):
    overrides = ["model.tasks=[semantic]", "model.semantic_things=all", "train.steps=2"]
    overrides.append("train.deterministic=false")  # it would hold for the tests that follow
    train(load_config(TINY, [*overrides, *IN_PROCESS]), tmp_path)
    source = find_model(tmp_path)
    results = evaluate_run(source)
    predictor, config = load_predictor(tmp_path), source.load_config()
    assert not {"box_ap", "mask_ap"} & set(results)
    names = [category.name for category in predictor.categories.things]
    names += [category.name for category in predictor.categories.stuff]
    assert list(results["semantic"]["per_class"]) == names
    assert "Instances" not in format_table(results)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert set(lines[0]["loss"]) == {"semantic", "total"}

    folder = pathlib.Path(config.data.root) / config.data.validation.images
    image = read_image(min(folder.iterdir()))
    (prediction,) = predictor.run(image[None])
    assert schema.INSTANCES not in prediction
    assert not segments(prediction).any()
    # Stuff follows the four things; what is a thing to the semantic branch is void in the map.
    semantic = prediction[schema.SEMANTIC_MAP]
    assert semantic.max() < 8
    np.testing.assert_array_equal(prediction[schema.PANOPTIC_MAP] > 0, semantic >= 4)
    ids = np.append(0, prediction[schema.CATEGORY_IDS])[prediction[schema.PANOPTIC_MAP]]
    stuff_ids = np.array(predictor.categories.stuff_ids)
    np.testing.assert_array_equal(
        ids, np.where(semantic >= 4, stuff_ids[np.maximum(semantic - 4, 0)], 0)
    )

    encoded = tf.io.encode_png(image).numpy()
    served = ServedGraph(predictor).serve_bytes(tf.constant([encoded, encoded]))
    assert not DETECTIONS & set(served)
    np.testing.assert_array_equal(served[schema.PANOPTIC_MAP][1], prediction[schema.PANOPTIC_MAP])


def test_a_log_line_has_the_losses_of_its_steps(tmp_path):
    """Alternating steps give other losses each, and a line of the log the means of its steps."""
    workdir = Workdir(tmp_path)
    workdir.create()
    log = MetricsLog(workdir, 0, lambda step: 0.1)
    common = {"gradient_norm": 1.0, "is_finite": 1.0}
    rows = [{"box": 2.0, "total": 2.0, **common}, {"semantic": 3.0, "total": 3.0, **common}]
    bad = {"box": np.nan, "total": np.nan, "gradient_norm": np.inf, "is_finite": 0.0}
    log.write(4, [*rows, {**rows[0], "box": 4.0}, bad], 2, 0)
    log.write(5, rows[:1], 2, 0)
    log.close()
    first, second = (json.loads(line) for line in workdir.metrics.open())
    assert first["loss"] == pytest.approx({"box": 3.0, "semantic": 3.0, "total": 7 / 3})
    assert first["skipped_steps"] == 1
    assert second["loss"] == {"box": 2.0, "total": 2.0}


@pytest.mark.parametrize(
    ("task", "things", "stuff"), [("semantic", 0, 8), ("semantic", 8, 0), ("instance", 8, 0)]
)
def test_a_data_set_of_things_or_stuff_alone(task, things, stuff):
    overrides = [f"model.tasks=[{task}]", "model.semantic_things=all"]
    overrides += [f"model.num_thing_classes={things}", f"model.num_stuff_classes={stuff}"]
    config = load_config(TINY, [*overrides, *PAINT_ALL])
    table = CategoryTable(tuple(Category(i, f"category {i}", things > 0) for i in range(1, 9)))
    predictor = Predictor(build_model(config.model), table, config.merge, config.data.validation)
    is_thing = segments(predictor.run(noise_image()[None])[0])
    assert is_thing.all() == (things > 0)
    # All that the semantic branch says of things is void.
    assert (len(is_thing) == 0) == (task == "semantic" and things > 0)


def test_a_run_starts_from_the_weights_of_a_backbone(tmp_path):
    """detectron2's names: `stem.conv1`, `res2.0.conv1`, ... with frozen batch norms."""
    config = load_config(TINY, ["model.norm=frozen_affine", "model.tasks=[semantic]"])
    model = build_model(config.model)
    convs = {"stem.conv1": model.backbone.stem}
    for stage in range(2, 6):
        for i, block in enumerate(getattr(model.backbone, f"res{stage}")):
            convs[f"res{stage}.{i}.conv1"] = block.conv1
            convs[f"res{stage}.{i}.conv2"] = block.conv2
            if block.shortcut is not None:
                convs[f"res{stage}.{i}.shortcut"] = block.shortcut
    rng = np.random.default_rng(0)
    arrays = {}
    for name, conv in convs.items():
        shape = np.array(conv.conv.kernel.shape)[[3, 2, 0, 1]]
        arrays[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        for key in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{name}.norm.{key}"] = rng.uniform(1, 2, shape[0]).astype(np.float32)
    np.savez(tmp_path / "backbone.npz", **arrays)
    settings = config.train.model_copy(update={"initial_weights": str(tmp_path / "backbone.npz")})
    head = model.semantic_head.predictor.kernel.numpy()
    load_initial_weights(model, settings)
    kernel = np.transpose(arrays["res3.0.shortcut.weight"], (2, 3, 1, 0))
    np.testing.assert_array_equal(model.backbone.res3[0].shortcut.conv.kernel, kernel)
    np.testing.assert_array_equal(model.semantic_head.predictor.kernel, head)
