"""Each value of each field is read alike by training, evaluation, the metrics and validate-data."""

import json

import pytest
from PIL import Image

from tf_panoptic_fpn.datatools.validate.instances import validate_instances
from tf_panoptic_fpn.datatools.validate.panoptic import validate_panoptic
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.instance_files import read_ground_truth
from tf_panoptic_fpn.evaluation.panoptic_files import evaluate_panoptic_files
from tf_panoptic_fpn.formats.breaches import ERROR, LEAVE_OUT, RULES, STOP, Breaches
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.json_file import read_lists
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png

ABSENT = object()
GOOD, WARNED, BAD = "good", "warned", "bad"
# What becomes of the value 1 written otherwise: "1", 1.0, true, null, and left out.
WRITTEN = ("1", 1.0, True, None, ABSENT)
FIELDS = {
    "id": (WARNED, WARNED, BAD, WARNED, WARNED),
    "image_id": (WARNED, WARNED, BAD, BAD, BAD),
    "category_id": (WARNED, WARNED, BAD, BAD, BAD),
    "iscrowd": (WARNED, WARNED, WARNED, WARNED, GOOD),
    "area": (WARNED, GOOD, BAD, GOOD, GOOD),
}
CASES = [
    (key, value, outcome)
    for key, outcomes in FIELDS.items()
    for value, outcome in zip(WRITTEN, outcomes, strict=True)
]
CASES += [
    ("iscrowd", "0", WARNED),
    ("iscrowd", "yes", BAD),
    ("iscrowd", 2, BAD),
    ("image_id", "2", BAD),
    ("category_id", "01", BAD),
    ("category_id", 1.5, BAD),
    ("id", "3f2b", WARNED),
    ("id", 1 << 70, BAD),
    ("area", "wide", BAD),
    ("bbox", [], WARNED),
    ("bbox", ["1", "1", "2", 2.0], WARNED),
    ("bbox", [1, 1, 0, 0], WARNED),
    ("bbox", ABSENT, GOOD),
    ("bbox", "1 1 2 2", BAD),
    ("segmentation", [[1, 1, 3, 1, 3, 3, 1, 3], [1, 1, float("nan"), 1, 3, 3]], WARNED),
    ("segmentation", [[1, 1, 3, 1, 3, 3, 1, 3], [1, 1, 3, 1, 3, 1e300]], WARNED),
    ("segmentation", [[1, 1, float("nan"), 1, 3, 3]], BAD),
    ("segmentation", [], BAD),
]


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    return tmp_path


def changed(entry, key, value):
    entry = {**entry, key: value}
    return {k: v for k, v in entry.items() if v is not ABSENT}


def tree_of(annotation, **image):
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6, **image}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}],
    }


ANNOTATION = {
    "id": 1,
    "image_id": 1,
    "category_id": 1,
    "iscrowd": 0,
    "area": 4,
    "bbox": [1, 1, 2, 2],
    "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]],
}


def outcome(read, policy=STOP):
    """Whether a reader is content, repairs something, or refuses."""
    breaches = Breaches(policy)
    try:
        read(breaches)
    except DataError as error:
        assert "\n" not in str(error)
        return BAD
    if breaches.left_out:
        return BAD
    return WARNED if breaches.counts else GOOD


@pytest.mark.parametrize(("key", "value", "expected"), CASES)
def test_annotations_of_instances(folder, key, value, expected, caplog):
    path = folder / "a.json"
    path.write_text(json.dumps(tree_of(changed(ANNOTATION, key, value))))

    def read(breaches):
        (record,) = read_coco_instances(folder, path, breaches).images
        assert len(record.instances) == (expected != BAD or key == "area")
        return record.instances

    assert outcome(read) == expected
    training = outcome(read, LEAVE_OUT)
    assert training == (WARNED if expected == BAD and key == "area" else expected)
    caplog.clear()
    metrics = outcome(lambda _: read_ground_truth(path, needs_masks=True))
    assert metrics == (GOOD if expected == WARNED else expected)
    assert bool(caplog.records) == (expected == WARNED)
    validation = validate_instances(folder, path)
    own = {"no_area", "no_box", "no_iscrowd", "area", "box", "all_crowds", "unused"}
    own.add("no_instances")
    found = set(validation.findings.counts) - own
    assert bool(found) == (expected != GOOD)
    if found != {"boxes_only"}:
        assert any(RULES[rule][0] == ERROR for rule in found) == (expected == BAD)
    if validation.corrected["annotations"] and found != {"boxes_only"}:
        path.write_text(json.dumps(validation.corrected))
        corrected = outcome(lambda breaches: read_coco_instances(folder, path, breaches).images[0])
        assert corrected == (WARNED if value == "3f2b" else GOOD)  # an `id` of text stays


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [case for case in CASES if case[0] not in ("segmentation", "id")]
    + [("id", "1", WARNED), ("id", 1.0, WARNED), ("id", ABSENT, BAD), ("id", "x", BAD)],
)
def test_segments(folder, key, value, expected):
    segment = {k: v for k, v in ANNOTATION.items() if k not in ("segmentation", "image_id")}
    write_panoptic_png([[0] * 6, [0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0] * 6], folder / "m.png")
    annotation = {"image_id": 1, "file_name": "m.png", "segments_info": [segment]}
    if key == "image_id":
        annotation = changed(annotation, key, value)
    else:
        annotation["segments_info"] = [changed(segment, key, value)]
    path = folder / "a.json"
    path.write_text(json.dumps(tree_of(annotation)))
    good = folder / "good.json"
    plain = {"image_id": 1, "file_name": "m.png", "segments_info": [segment]}
    good.write_text(json.dumps(tree_of(plain)))
    assert outcome(lambda breaches: read_coco_panoptic(folder, path, folder, breaches)) == expected
    validation = validate_panoptic(folder, path, folder)
    errors = validation.findings.total(ERROR)
    assert bool(errors) == (expected == BAD or (key == "area" and value in ("1", 1.0)))
    try:
        result = evaluate_panoptic_files(good, path, folder, folder)
    except DataError:
        assert expected == BAD
    else:
        assert expected != BAD and result["All"]["PQ"] == 1


@pytest.mark.parametrize(
    ("value", "is_thing"),
    [("0", False), ("1", True), (0.0, False), (True, True), (2, None), ("no", None), (None, None)],
)
def test_isthing(folder, value, is_thing):
    tree = tree_of({"image_id": 1, "file_name": "m.png", "segments_info": []})
    tree["categories"][0]["isthing"] = value
    tree["annotations"] = []
    path = folder / "a.json"
    path.write_text(json.dumps(tree))
    breaches = Breaches()
    if is_thing is None:
        with pytest.raises(
            DataError, match=r"category 'cat': `isthing` must be 0 or 1. Received: "
        ):
            read_coco_instances(folder, path, breaches)
        return
    split = read_coco_instances(folder, path, breaches)
    assert split.categories.categories[0].is_thing == is_thing
    assert breaches.counts == {"repaired": 1}


@pytest.mark.parametrize("name", ["a.png", ".\\a.png", "./a.png", "sub\\..\\a.png"])
def test_paths_are_found(folder, name):
    path = folder / "a.json"
    path.write_text(json.dumps(tree_of(ANNOTATION, file_name=name)))
    (record,) = read_coco_instances(folder, path).images
    assert record.file_name == "a.png"


def test_a_byte_order_mark_is_read_and_utf_16_is_named(folder):
    path = folder / "a.json"
    text = json.dumps(tree_of(ANNOTATION))
    path.write_text(text, encoding="utf-8-sig")
    (record,) = read_coco_instances(folder, path).images
    assert [i.id for i in record.instances] == [1]
    assert validate_instances(folder, path).findings.counts == {"mark": 1}
    path.write_text(text, encoding="utf-16")
    with pytest.raises(DataError, match=r"a.json: not JSON: the file is in UTF-16 and must be"):
        read_lists(path, ("images",))


def test_ids_of_text_and_numbers_are_told_apart(folder):
    """An exact match goes before a repair."""
    Image.new("RGB", (6, 4)).save(folder / "b.png")
    tree = tree_of(changed(ANNOTATION, "image_id", "1"))
    tree["images"].append({**tree["images"][0], "id": "1", "file_name": "b.png"})
    path = folder / "a.json"
    path.write_text(json.dumps(tree))
    breaches = Breaches()
    counts = [
        len(record.instances) for record in read_coco_instances(folder, path, breaches).images
    ]
    assert (counts, breaches.counts) == ([0, 1], {})
    tree["images"].pop()
    tree["annotations"][0]["image_id"] = "7"
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"for image id '7', which is not listed; .* are int"):
        read_coco_instances(folder, path)
