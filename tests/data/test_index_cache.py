import concurrent.futures
import dataclasses
import json
import os
import pathlib
import time

import numpy as np
import pytest
from absl import logging
from PIL import Image

from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data import index_cache, splits
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_instances import CocoInstancesSplit
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit
from tf_panoptic_fpn.formats.label_maps import LabelMapsSplit

IDS = np.array([[1, 1, 300], [0, 2, 300]])
SPLIT = CocoPanopticSplit(images="images", panoptic_json="panoptic.json", panoptic_dir="panoptic")


@pytest.fixture
def data(tiny, tmp_path):
    """The configuration of a data set of two images, written to disk."""
    for crowd in ((), (300,)):
        tiny.add(IDS, {1: 9, 2: 3, 300: 7}, crowd)
    tiny.read()
    return DataConfig(root=str(tmp_path), train=SPLIT)


@pytest.fixture
def builds(monkeypatch):
    """The number of times that a split was read."""
    calls = []
    load_split = splits.load_split

    def counted(*arguments, **keywords):
        calls.append(arguments)
        return load_split(*arguments, **keywords)

    monkeypatch.setattr(splits, "load_split", counted)
    return calls


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def _assert_equal(index, expected):
    for field in dataclasses.fields(index):
        np.testing.assert_array_equal(getattr(index, field.name), getattr(expected, field.name))


@pytest.mark.parametrize("semantic_things", ["other", "all"])
def test_the_index_of_the_cache_is_that_of_the_split(data, builds, semantic_things):
    expected = build_index(splits.load_split(data, "train", semantic_things))
    for number in (2, 2):
        _assert_equal(splits.load_index(data, "train", semantic_things), expected)
        assert len(builds) == number
    index = splits.load_index(data, "train", semantic_things)
    assert isinstance(index.label_ids, np.memmap)
    assert len(list(pathlib.Path(data.root, index_cache.FOLDER).iterdir())) == 1


def test_the_things_are_classed_when_it_is_loaded(data, builds):
    assert splits.load_index(data, "train", "other").label_classes.tolist() == [2, 0, 0] * 2
    assert splits.load_index(data, "train", "all").label_classes.tolist() == [3, 0, 1] * 2
    assert len(builds) == 1


def _touch_json(root):
    path = root / "panoptic.json"
    path.write_text(path.read_text() + " ")


def _add_an_image(root):
    (root / "images/new.png").write_bytes((root / "images/0.png").read_bytes())


def _new_version(root):
    (path,) = (root / index_cache.FOLDER).iterdir()
    description = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps({**description, "version": 0}))


@pytest.mark.parametrize("change", [_touch_json, _add_an_image, _new_version])
def test_it_is_made_anew_after_a_change(data, builds, change):
    splits.load_index(data, "train")
    change(pathlib.Path(data.root))
    splits.load_index(data, "train")
    assert len(builds) == 2
    assert len(list(pathlib.Path(data.root, index_cache.FOLDER).iterdir())) == 1


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, pathlib.Path.unlink, _flip])
@pytest.mark.parametrize("name", ["label_ids.npy", "index.json", "image_paths.npy"])
def test_a_damaged_index_is_made_anew(data, builds, warnings, damage, name):
    expected = build_index(splits.load_split(data, "train"))
    splits.load_index(data, "train")
    (path,) = pathlib.Path(data.root, index_cache.FOLDER).iterdir()
    damage(path / name)
    for _ in range(2):
        _assert_equal(splits.load_index(data, "train"), expected)
        assert len(builds) == 3
    assert len(warnings) == 1 and "is damaged and made anew" in warnings[0]


def test_several_at_once(data):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        indices = list(pool.map(lambda _: splits.load_index(data, "train"), range(8)))
    for index in indices[1:]:
        _assert_equal(index, indices[0])
    assert len(list(pathlib.Path(data.root, index_cache.FOLDER).iterdir())) == 1


def test_an_images_folder_that_holds_the_cache(tiny, tmp_path, builds):
    """Making the cache changes the folder; that must not count as a change of the images."""
    tiny.add(IDS, {1: 9, 2: 3, 300: 7})
    tiny.read()
    paths = {"panoptic_json": "../panoptic.json", "panoptic_dir": "../panoptic"}
    split = CocoPanopticSplit(images=".", **paths)
    for _ in range(2):
        splits.load_index(DataConfig(root=str(tmp_path / "images"), train=split), "train")
    assert len(builds) == 1


def test_leftovers_are_removed(data):
    folder = pathlib.Path(data.root, index_cache.FOLDER)
    for name, age in (("unfinished-old", 90000), ("unfinished-new", 10)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    splits.load_index(data, "train")
    names = [path.name for path in folder.iterdir()]
    assert "unfinished-new" in names and "unfinished-old" not in names


def test_a_relative_root_is_the_same_from_everywhere(data, builds, monkeypatch):
    root = pathlib.Path(data.root)
    indices = []
    for folder, relative in ((root, "."), (root.parent, root.name)):
        monkeypatch.chdir(folder)
        indices.append(splits.load_index(data.model_copy(update={"root": relative}), "train"))
    assert indices[1].image_paths.tolist() == [os.fsencode(root / f"images/{i}.png") for i in "01"]
    assert len(builds) == 1


def test_without_a_root_it_lies_beside_the_images(data, tmp_path):
    keys = ("images", "panoptic_json", "panoptic_dir")
    paths = {key: str(tmp_path / getattr(SPLIT, key)) for key in keys}
    splits.load_index(DataConfig(train=CocoPanopticSplit(**paths)), "train")
    assert len(list((tmp_path / index_cache.FOLDER).iterdir())) == 1


def test_the_folder_can_be_chosen(data, tmp_path):
    folder = tmp_path / "cache/index"
    splits.load_index(data.model_copy(update={"index_cache": str(folder)}), "train")
    assert len(list(folder.iterdir())) == 1
    assert not (tmp_path / index_cache.FOLDER).exists()


def test_without_a_place_to_write(data, warnings, monkeypatch, tmp_path):
    expected = build_index(splits.load_split(data, "train"))
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / index_cache.FOLDER).write_text("")  # no folder can be made there
    _assert_equal(splits.load_index(data, "train"), expected)
    assert len(list((tmp_path / "home/tf_panoptic_fpn").iterdir())) == 1
    assert not warnings
    nowhere = data.model_copy(update={"index_cache": str(file)})
    _assert_equal(splits.load_index(nowhere, "train"), expected)
    assert len(warnings) == 1 and "no folder for the index can be written to" in warnings[0]


def test_what_cannot_be_used_is_counted_and_named(tmp_path, warnings):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    good = [[1, 1, 3, 1, 3, 3, 1, 3]]
    masks = [good, [], good, [[1, 1]], *[[[0, 0]]] * 5]
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "segmentation": mask}
            for i, mask in enumerate(masks)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(tree))
    split = CocoInstancesSplit(images=".", instances_json="instances.json")
    data = DataConfig(root=str(tmp_path), train=split)
    index = splits.load_index(data, "train")
    assert index.instance_offsets.tolist() == [0, 2]
    (line,) = warnings
    assert line.startswith("7 annotations or images are left out: ")
    assert "a.png: annotation 1: `segmentation` is empty" in line
    assert line.endswith("; and 2 more")
    splits.load_index(data, "train")
    with pytest.raises(DataError, match="annotation 1: `segmentation` is empty"):
        list(splits.load_split(data, "train").images)


def test_a_set_without_a_usable_annotation_stops_with_the_first_reason(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    box = {"id": 5, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [1, 1, 2, 2]}
    split = CocoInstancesSplit(images=".", instances_json="instances.json")
    data = DataConfig(root=str(tmp_path), train=split)
    for annotations, reason in (
        ([box], "a.png: annotation 5: the annotation has a box and no mask"),
        ([], "the data set has none"),
    ):
        tree = {
            "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "instances.json").write_text(json.dumps(tree))
        with pytest.raises(DataError, match=f"no annotation can be used: .*{reason}"):
            splits.load_index(data, "train")


def test_an_image_without_segments_is_left_out(tiny, data, warnings):
    tiny.tree["annotations"][0]["segments_info"] = []
    with pytest.raises(DataError, match=r"panoptic.json: 0.png: the annotation has no segments"):
        tiny.read()
    index = splits.load_index(data, "train")
    assert [os.path.basename(path) for path in index.image_paths.tolist()] == [b"1.png"]
    assert len(warnings) == 2 and "0.png: the annotation has no segments" in warnings[0]
    assert warnings[1].startswith("every annotation is a crowd of 1 thing classes, ")
    assert warnings[1].endswith(": person")
    tiny.tree["annotations"][1]["segments_info"] = []
    tiny.json_path.write_text(json.dumps(tiny.tree))
    with pytest.raises(DataError, match=r"no image can be used: .*0.png: the annotation has no"):
        splits.load_index(data, "train")


def test_an_image_whose_map_cannot_be_read_is_left_out(tmp_path, warnings):
    (tmp_path / "classes.yaml").write_text("- {id: 1, name: tree}")
    for name in ("1", "2"):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (3, 2), 1).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "images/1.png").write_bytes(b"")
    split = LabelMapsSplit(images="images", label_dir="labels", categories="classes.yaml")
    data = DataConfig(root=str(tmp_path), train=split)
    index = splits.load_index(data, "train")
    assert index.image_paths.tolist() == [os.fsencode(tmp_path / "images/2.png")]
    assert len(warnings) == 1 and "images/1.png: the image file is empty" in warnings[0]
    (tmp_path / "images/2.png").write_bytes(b"")
    (tmp_path / "images/3.txt").write_text("")  # the folder changes
    with pytest.raises(DataError, match=r"no image can be used: .*the image file is empty"):
        splits.load_index(data, "train")
