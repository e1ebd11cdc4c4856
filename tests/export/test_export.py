"""What an export replaces, and what it serves of a predictor."""

import argparse
import types

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.commands import export as command
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.saved_model import (
    check_replaceable,
    export_model,
    export_saved_model,
)
from tf_panoptic_fpn.export.served_graph import ServedGraph
from tf_panoptic_fpn.inference.model_source import find_model

TABLE = CategoryTable((Category(0, "cat", True), Category(3_000_000_000, "dog", True)))


def write_export(folder):
    (folder / "assets").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    TABLE.save(folder / "assets" / "categories.json")
    return folder


def test_nothing_is_replaced_but_an_export(tmp_path):
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "letters" / "a.txt").write_text("dear", encoding="utf-8")
    file = tmp_path / "1"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(write_export(tmp_path / "export"))
    for path in (home, file, link):
        with pytest.raises(ConfigError, match=f"{path}: is there and holds something else"):
            check_replaceable(path)
        with pytest.raises(ConfigError, match="it is not replaced"):
            export_saved_model(None, path)
    assert (home / "letters" / "a.txt").read_text(encoding="utf-8") == "dear"
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "export", tmp_path / "empty", tmp_path / "absent"):
        check_replaceable(path)


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(ConfigError, match="is a SavedModel already"):
        export_model(find_model(write_export(tmp_path / "export")), tmp_path / "new")
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    with pytest.raises(ConfigError, match=r"--output must be given: .* is not the folder of a run"):
        export_model(find_model(tmp_path / "weights.npz"))


def test_served_category_ids_are_whole_and_padded_with_minus_1():
    instances = {
        schema.BOXES: tf.zeros([1, 3, 4]),
        schema.SCORES: tf.constant([[0.9, 0.8, 0.0]]),
        schema.CLASSES: tf.constant([[1, 0, -1]]),
        schema.MASK_PROBS: tf.zeros([1, 3, 28, 28]),
        schema.NUM_DETECTIONS: tf.constant([2]),
    }
    outputs = {schema.PANOPTIC_MAP: tf.zeros([1, 2, 3], tf.int32), schema.INSTANCES: instances}
    predictor = types.SimpleNamespace(
        categories=TABLE, traced=lambda images, thresholds: outputs, thresholds=(0.5, 0.5, 4096, 3)
    )
    served = ServedGraph(predictor).serve_images(tf.zeros([1, 2, 3, 3], tf.uint8))
    ids = served["detection_category_ids"]
    assert ids.dtype == tf.int64
    assert ids.numpy().tolist() == [[3_000_000_000, 0, -1]]


def refused(*arguments):
    """What the command says of arguments that cannot be, before it loads anything."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(ConfigError) as error:
        command.run(parser.parse_args(["--model=nowhere", *arguments]))
    return str(error.value)


def test_formats_and_8_bits_are_checked_first():
    for kind in ("saved_model", "litert"):
        expected = f"--int8 is for --format=onnx or openvino. Received: {kind}"
        assert refused(f"--format={kind}", "--int8") == expected
    assert "nowhere: no such file or folder" in refused("--format=litert")
    assert "nowhere: no such file or folder" in refused("--format=onnx", "--int8")
