import json

import numpy as np
import pytest
from PIL import Image

from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_stuff import read_coco_stuff
from tf_panoptic_fpn.formats.label_maps import read_label_maps


def _save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Images `a/1.jpg` and `2.png`, with maps of 8 bits and with a palette."""
    _save(tmp_path / "images/a/1.jpg", np.zeros((2, 3, 3), np.uint8))
    _save(tmp_path / "images/2.png", np.zeros((2, 2, 3), np.uint8))
    _save(tmp_path / "labels/a/1.png", np.array([[0, 5, 5], [9, 9, 255]], np.uint8))
    palette = Image.fromarray(np.array([[5, 5], [9, 5]], np.uint8), "P")
    palette.putpalette([200, 100, 50] * 256)
    palette.save(tmp_path / "labels/2.png")
    (tmp_path / "classes.yaml").write_text(
        "- {id: 9, name: tree}\n- {id: 5, name: grass}\n- {id: 700, name: far, isthing: 1}\n"
    )
    (tmp_path / "images/notes.txt").write_text("not an image")
    return tmp_path


def _read(folder):
    return read_label_maps(folder / "images", folder / "labels", folder / "classes.yaml")


def test_label_maps(folder):
    split = _read(folder)
    assert not split.has_panoptic
    assert (split.categories.stuff_ids, split.categories.thing_ids) == ([5, 9], [700])
    (second, _, second_ids), (first, image, first_ids) = evaluation_samples(split)
    assert (first.image_id, second.image_id) == ("a/1", "2")
    assert (first.height, first.width, image.shape) == (2, 3, (2, 3, 3))
    names = {0: 0, **{s.id: s.category_id for s in first.segments}}
    assert np.vectorize(names.get)(first_ids).tolist() == [[0, 5, 5], [9, 9, 0]]
    assert np.vectorize(names.get)(second_ids).tolist() == [[5, 5], [9, 5]]
    assert first.instances == ()
    index = build_index(split)
    assert index.map_format == "grey"
    assert index.needs_pillow.tolist() == [True, False]
    assert index.sizes.tolist() == [[2, 2], [2, 3]]
    assert index.instance_offsets.tolist() == [0, 0, 0]
    classes = zip(index.label_ids[:5].tolist(), index.label_classes[:5].tolist(), strict=True)
    assert dict(classes) == {9: 2, 5: 1, 700: 0, 0: 255, 255: 255}


def test_a_class_zero_and_16_bits(tmp_path):
    _save(tmp_path / "images/1.png", np.zeros((1, 3, 3), np.uint8))
    _save(tmp_path / "labels/1.png", np.array([[0, 700, 255]], np.uint16))
    tree = {"categories": [{"id": 0, "name": "a"}, {"id": 700, "name": "b"}]}
    (tmp_path / "classes.yaml").write_text(json.dumps(tree))
    split = _read(tmp_path)
    ((record, _, ids),) = evaluation_samples(split)
    assert ids.tolist() == [[1, 701, 0]]
    assert [(s.id, s.category_id) for s in record.segments] == [(1, 0), (701, 700)]
    assert build_index(split).label_ids.tolist() == [0, 700, 255]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("3", "must hold a list of categories"),
        ("[]", "must hold a list of categories, one or more"),
        ("- {id: 70000, name: a}", "ids in 0..65535, .* Received: 70000"),
        ("- {id: x, name: a}", "`id` must be an int"),
        ("- {id: 1}", "a category needs `id` and `name`"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_categories(folder, text, fault):
    (folder / "classes.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"classes.yaml: .*{fault}"):
        _read(folder)


def test_bad_files(folder):
    _save(folder / "labels/2.png", np.array([[5, 5], [9, 6]], np.uint8))
    with pytest.raises(DataError, match=r"2.png: the map holds unknown labels: 6"):
        next(evaluation_samples(_read(folder)))
    _save(folder / "labels/2.png", np.array([[5, 5, 5]], np.uint8))
    with pytest.raises(DataError, match=r"2.png: the size must be 2x2 .*, as annotated."):
        next(evaluation_samples(_read(folder)))
    (folder / "images/2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2.png: the image file is empty"):
        next(evaluation_samples(_read(folder)))
    (folder / "labels/2.png").unlink()
    with pytest.raises(
        DataError, match=r"labels/2.png: the label map file is missing \(1 of the 2"
    ):
        _read(folder)
    _save(folder / "images/2.jpg", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"two images share a label map: 2.jpg, 2.png"):
        _read(folder)


def test_coco_stuff(tmp_path):
    """Values are category ids - 1: 0 is a person (a thing), 123 grass, 11 a class without masks."""
    values = np.array([[0, 0, 123, 181], [123, 123, 255, 11]], np.uint8)
    _save(tmp_path / "images/000001.jpg", np.zeros((2, 4, 3), np.uint8))
    _save(tmp_path / "maps/000001.png", values)
    tree = {
        "images": [{"id": 1, "file_name": "000001.jpg", "height": 2, "width": 4}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": {"size": [2, 4], "counts": [0, 1, 1, 1, 5]},
            }
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(tree))
    split = read_coco_stuff(tmp_path / "images", path, tmp_path / "maps")
    assert not split.has_panoptic
    stuff = {c.id: c.name for c in split.categories.stuff}
    assert (len(stuff), stuff[92], stuff[124], stuff[182]) == (91, "banner", "grass", "wood")
    ((record, _, ids),) = evaluation_samples(split)
    names = {0: 0, **{s.id: s.category_id for s in record.segments}}
    assert np.vectorize(names.get)(ids).tolist() == [[1, 1, 124, 182], [124, 124, 0, 0]]
    assert [i.category_id for i in record.instances] == [1]
    index = build_index(split)
    classes = dict(zip(index.label_ids.tolist(), index.label_classes.tolist(), strict=True))
    assert [classes[v] for v in (0, 123, 181, 255, 11)] == [0, 33, 91, 255, 255]
    assert len(classes) == 183
    assert index.runs.tolist() == [0, 1, 1, 1, 5]

    tree["categories"].append({"id": 95, "name": "bridge"})
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"must have things only, with ids below 92"):
        read_coco_stuff(tmp_path / "images", path, tmp_path / "maps")


def test_the_names_of_coco_stuff(samples, tmp_path):
    tree = json.loads((samples / "cocostuff_13/panoptic.json").read_text())
    path = tmp_path / "instances.json"
    Image.new("RGB", (1, 1)).save(tmp_path / "1.png")
    image = {"id": 1, "file_name": "1.png", "height": 1, "width": 1}
    things = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": things}))
    split = read_coco_stuff(tmp_path, path, tmp_path)
    expected = {c["id"]: c["name"] for c in tree["categories"] if c["id"] > 91}
    assert {c.id: c.name for c in split.categories.stuff} == expected
