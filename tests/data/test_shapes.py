import hashlib

import numpy as np
import pytest

from tf_panoptic_fpn.config import ShapesConfig
from tf_panoptic_fpn.data.shapes import CATEGORIES, draw_shapes, write_shapes
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.records import load_segments
from tf_panoptic_fpn.masks.segment_map import tight_boxes

SMALL = ShapesConfig(train_images=5, validation_images=2, image_size=(96, 128), seed=3)


def _read(folder):
    return read_coco_panoptic(folder / "images", folder / "panoptic.json", folder / "panoptic")


def _contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "made"
    write_shapes(folder, SMALL)
    return folder


def test_the_files_form_a_coco_panoptic_data_set(written):
    for name, count in (("train", 5), ("validation", 2)):
        split = _read(written / name)
        assert len(split.images) == count
        assert split.categories.thing_ids == [5, 12, 33, 57]
        assert split.categories.stuff_ids == [2, 9, 21, 40]
        assert all(category.color for category in split.categories.categories)
        for record in split.images:
            image, ids = load_segments(record)
            assert image.shape == (96, 128, 3)
            boxes, areas = tight_boxes(ids, [s.id for s in record.segments])
            assert [s.area for s in record.segments] == areas.tolist()
            y1, x1, y2, x2 = boxes.T
            xywh = np.stack([x1, y1, x2 - x1, y2 - y1], 1)
            np.testing.assert_array_equal(xywh, [s.bbox_xywh for s in record.segments])
            assert not any(s.is_crowd for s in record.segments)


def test_the_same_configuration_draws_the_same_files(written, tmp_path):
    write_shapes(tmp_path / "again", SMALL)
    assert _contents(tmp_path / "again") == _contents(written)
    assert len(_contents(written)) == 2 * (5 + 2) + 2 + 1


def test_all_images_differ(written):
    images = [digest for path, digest in _contents(written).items() if path.endswith(".jpg")]
    assert len(set(images)) == 7


def test_a_complete_folder_is_left_alone(tmp_path):
    write_shapes(tmp_path, SMALL)
    marked = tmp_path / "train" / "images" / "00000.jpg"
    marked.write_bytes(b"mark")
    write_shapes(tmp_path, SMALL)
    assert marked.read_bytes() == b"mark"


@pytest.mark.parametrize("change", ["interrupted", "other seed"])
def test_another_folder_is_drawn_anew(tmp_path, change):
    write_shapes(tmp_path, SMALL)
    marked = tmp_path / "train" / "images" / "00000.jpg"
    marked.write_bytes(b"mark")
    config = SMALL
    if change == "interrupted":
        (tmp_path / "shapes.json").unlink()
    else:
        config = SMALL.model_copy(update={"seed": 4})
    write_shapes(tmp_path, config)
    assert marked.read_bytes() != b"mark"
    assert (tmp_path / "shapes.json").is_file()


@pytest.fixture(scope="module")
def drawn():
    return [draw_shapes((128, 160), np.random.default_rng(seed)) for seed in range(40)]


def test_images_are_neither_bare_nor_void(drawn):
    is_thing = {category.id: category.is_thing for category in CATEGORIES}
    things, stuff = [], []
    for image, ids, category_ids in drawn:
        assert (image.dtype, image.shape, ids.dtype) == (np.uint8, (128, 160, 3), np.int32)
        _, areas = tight_boxes(ids, list(category_ids))
        assert areas.sum() == ids.size
        assert areas.min() >= 128 * 160 // 160
        count = sum(is_thing[category_id] for category_id in category_ids.values())
        things.append(count)
        stuff.append(len(category_ids) - count)
    assert (min(things), max(things)) == (2, 6)
    assert (min(stuff), max(stuff)) == (2, 4)
    assert {c for _, _, ids in drawn for c in ids.values()} == set(is_thing)


def test_some_instances_hide_parts_of_others(drawn):
    """Later instances, with the greater ids, take pixels from the boxes of earlier ones."""
    is_thing = {category.id: category.is_thing for category in CATEGORIES}
    hidden = 0
    for _, ids, category_ids in drawn:
        things = [i for i, category_id in category_ids.items() if is_thing[category_id]]
        boxes, _ = tight_boxes(ids, things)
        for segment_id, (y1, x1, y2, x2) in zip(things, boxes.astype(int), strict=True):
            inside = ids[y1:y2, x1:x2]
            hidden += bool((np.isin(inside, things) & (inside > segment_id)).sum() > 20)
    assert hidden >= 10


def test_the_colour_tells_the_classes_apart(drawn):
    """Mean colours of the instances of a class lie nearer to one another than to other classes'."""
    is_thing = {category.id: category.is_thing for category in CATEGORIES}
    chroma, classes = [], []
    for image, ids, category_ids in drawn:
        for segment_id, category_id in category_ids.items():
            if is_thing[category_id]:
                mean = image[ids == segment_id].mean(0)
                chroma.append(mean / mean.sum())
                classes.append(category_id)
    chroma, classes = np.array(chroma), np.array(classes)
    centers = {c: chroma[classes == c].mean(0) for c in set(classes)}
    nearest = [min(centers, key=lambda c: np.abs(centers[c] - x).sum()) for x in chroma]
    assert (np.array(nearest) == classes).mean() > 0.85
    spread = [chroma[classes == c].std(0).max() for c in centers]
    assert min(spread) > 0.01
