"""More classes than a byte holds, and ids of any number, from files to batches and back."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_panoptic_fpn import data, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import AugmentConfig, DataConfig, MergeConfig
from tf_panoptic_fpn.data.class_shares import class_shares
from tf_panoptic_fpn.data.geometry import Geometry, paint_runs
from tf_panoptic_fpn.data.index import build_index, index_of_columns
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.tfrecords import load_records_index, write_records
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.evaluator import evaluate
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit
from tf_panoptic_fpn.formats.label_maps import LabelMapsSplit
from tf_panoptic_fpn.inference.merge import Merger
from tf_panoptic_fpn.models.losses import semantic_loss
from tf_panoptic_fpn.results.result import Result

SIZE = (64, 96)


def _label_maps(folder, count):
    """Two images and maps of 16 bits, of the ids 0 to `count` - 1 and 65535; their split."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(count)
    maps = []
    for number in range(2):
        ids = rng.permutation(np.arange(count)).repeat(4)[: SIZE[0] * SIZE[1]]
        ids = np.resize(ids, SIZE).astype(np.uint16)
        special = [0, 1, *(i for i in (254, 255, 256) if i < count), count - 1, 65535]
        ids[0, : len(special)] = special
        maps.append(ids)
        Image.fromarray(ids).save(folder / f"labels/{number}.png")
        pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
    # 65535 is a class, so that there is one beyond `count`; 0 and 255 are classes, too.
    entries = [{"id": i, "name": f"class {i}", "isthing": 0} for i in [*range(count), 65535]]
    (folder / "classes.json").write_text(json.dumps(entries))
    split = LabelMapsSplit(
        images=str(folder / "images"),
        label_dir=str(folder / "labels"),
        categories=str(folder / "classes.json"),
        short_sides=(64,),
        flip_probability=0.0,
    )
    return maps, split


def _batch(index, split, **settings):
    config = DataConfig(train=split, **settings)
    (batch,) = training_dataset(index, config, 2, 1, seed=0)
    return {name: value.numpy() for name, value in batch.items()}


@pytest.mark.parametrize("count", [200, 300, 847])
def test_label_maps_become_batches(tmp_path, count):
    maps, config = _label_maps(tmp_path, count)
    split = config.read("")
    index = build_index(split)
    # A byte a label where that is enough.
    assert index.label_classes.dtype == (np.uint8 if count == 200 else np.uint16)
    batch = _batch(index, config)
    labels = batch[schema.SEMANTIC]
    assert labels.dtype == np.int32
    order = range(2) if (batch[schema.IMAGES][0] == _pixels(tmp_path, 0)).all() else (1, 0)
    for row, number in zip(labels, order, strict=True):
        # Class 0 is `other`; 65535 is the last.
        np.testing.assert_array_equal(row, np.minimum(maps[number].astype(int), count) + 1)
    assert labels.max() == count + 1
    pixels = np.bincount(labels[labels >= 0], minlength=count + 2)
    np.testing.assert_allclose(class_shares(split), pixels / pixels.sum())


def _pixels(folder, number):
    return np.asarray(Image.open(folder / f"images/{number}.png"))


def test_void_is_no_class_in_any_dtype(tmp_path):
    """Beside the image, and where the ids are no class."""
    _, config = _label_maps(tmp_path, 847)
    entries = json.loads((tmp_path / "classes.json").read_text())
    # 0 and 255 are void now, as they are where they are no class.
    kept = [e for e in entries if e["id"] not in (0, 255)]
    (tmp_path / "classes.json").write_text(json.dumps(kept))
    settings = {"canvases": ((96, 128),), "augment": AugmentConfig(crop_size=(48, 96))}
    labels = _batch(build_index(config.read("")), config, **settings)[schema.SEMANTIC]
    assert labels.shape == (2, 96, 128)
    assert (labels[:, 48:] == -1).all()
    assert (labels[:, :, 96:] == -1).all()
    assert (labels[:, :48, :96] == -1).any()
    assert labels.min() == -1
    assert labels.max() > 255


def test_more_classes_than_can_be_painted(monkeypatch):
    monkeypatch.setattr(data.index, "_MAX_CLASSES", 300)
    table = CategoryTable(tuple(Category(i, str(i), False) for i in range(300)))
    with pytest.raises(DataError, match=r"At most 299 stuff .* Received: 300"):
        index_of_columns(table, {})


def test_the_largest_class_is_painted():
    """A run of it to the last column of the longest row."""
    width = 2**15 - 1
    rectangles = tf.constant([[0, 0, 1, 2], [0, 2, 1, width]])
    size, whole = tf.constant([1, width]), tf.constant([0, 0, 1, width])
    same = Geometry(size, size, whole, tf.constant(False))
    values = tf.constant([-1, 2**15 - 2])
    painted = paint_runs(rectangles, values, same, tf.uint16).numpy()
    assert painted[0, :3].tolist() == [65535, 65535, 2**15 - 2]
    assert (painted[0, 2:] == 2**15 - 2).all()
    narrow = paint_runs(rectangles, tf.constant([-1, 254]), same).numpy()
    assert (narrow.dtype, narrow[0, 0], narrow[0, -1]) == (np.uint8, 255, 254)


def test_records(tmp_path):
    _, config = _label_maps(tmp_path / "data", 300)
    index = build_index(config.read(""))
    write_records(index, tmp_path / "records", 1)
    loaded = load_records_index(tmp_path / "records", "other")
    assert loaded.label_classes.dtype == np.uint16
    np.testing.assert_array_equal(loaded.label_classes, index.label_classes)
    expected = _batch(index, config)
    received = _batch(loaded, config.model_copy(update={"records": str(tmp_path / "records")}))
    np.testing.assert_array_equal(received[schema.SEMANTIC], expected[schema.SEMANTIC])


def test_the_loss_ignores_what_is_no_class():
    """ln 300 for each labelled pixel; -1 is none, nor is 300, but 255 is."""
    labels = np.array([[[255, -1, 299, 300]]], np.int32)
    total, count = semantic_loss(tf.zeros([1, 1, 4, 300]), tf.constant(labels))["semantic"]
    assert float(count) == 2
    np.testing.assert_allclose(total, 2 * np.log(300), rtol=1e-6)
    total, count = semantic_loss(tf.zeros([1, 1, 4, 255]), tf.constant(labels))["semantic"]
    assert (float(total), float(count)) == (0, 0)


# A thing of id 0, one beyond int32, and 400 categories of stuff, of which one is beyond it by far.
IDS = {"things": [0, 3_000_000_000], "stuff": [*range(1, 400), 2**40]}


def test_coco_panoptic_of_400_stuff_categories(tmp_path, tiny):
    tiny.tree["categories"] = [
        {"id": i, "name": f"{kind} {i}", "isthing": int(kind == "things")}
        for kind, ids in IDS.items()
        for i in ids
    ]
    ids = np.zeros(SIZE, int)
    ids[:, :40] = 70_000
    ids[32:, :40] = 2
    ids[8:24, 8:24] = 3
    ids[40:56, 8:24] = 4
    ids[:, 40:80] = 5
    categories = {70_000: 399, 2: 256, 3: 0, 4: 3_000_000_000, 5: 2**40}
    image = tiny.add(ids, categories)
    split = tiny.read()
    table = split.categories
    index = build_index(split)
    batch = _batch_of_one(index)
    # Class 0 is `other`, then the stuff by id: 2**40 is the last.
    lookup = np.zeros(70_001, int)
    lookup[[0, 2, 3, 4, 5, 70_000]] = [-1, 256, 0, 0, 400, 399]
    np.testing.assert_array_equal(batch[schema.SEMANTIC][0], lookup[ids])
    assert batch[schema.GT_CLASSES][0, :2].tolist() == [0, 1]

    # A perfect prediction, merged, written and scored.
    def predict(_image):
        instances = {
            schema.BOXES: np.float32([[8, 8, 24, 24], [40, 8, 56, 24]]),
            schema.SCORES: np.float32([0.9, 0.8]),
            schema.CLASSES: np.int32([0, 1]),
            schema.MASK_PROBS: np.ones((2, 28, 28), np.float32),
            schema.NUM_DETECTIONS: np.int32(2),
        }
        semantic = np.maximum(lookup[ids], 0)
        merged = Merger(table)(instances, semantic, SIZE, MergeConfig(stuff_area=0))
        assert merged[schema.CATEGORY_IDS].dtype == np.int64
        return Result.from_outputs(
            {**merged, schema.SEMANTIC_MAP: semantic, schema.INSTANCES: instances}, table
        )

    (record,) = split.images
    results = evaluate(predict, [(record, image, ids)], table, tmp_path / "out", 1, identity={})
    assert results["panoptic"]["All"]["PQ"] == 1
    assert results["semantic"]["mIoU"] == 1
    assert results["box_ap"]["AP"] == pytest.approx(1)
    (written,) = (tmp_path / "out").glob("*panoptic*.json")
    (annotation,) = json.loads(written.read_text())["annotations"]
    found = sorted(s["category_id"] for s in annotation["segments_info"])
    assert found == sorted(categories.values())
    # What is written is read, and gives the same.
    (png,) = (tmp_path / "out" / "panoptic").iterdir()
    assert png.name == annotation["file_name"]
    (semantic_png,) = (tmp_path / "out" / "semantic").iterdir()
    received = np.asarray(Image.open(semantic_png)).astype(int)
    np.testing.assert_array_equal(received, np.maximum(lookup[ids], 0))


def _batch_of_one(index):
    split = CocoPanopticSplit(short_sides=(64,), flip_probability=0.0)
    (batch,) = training_dataset(index, DataConfig(train=split), 1, 1, seed=0)
    return {name: value.numpy() for name, value in batch.items()}
