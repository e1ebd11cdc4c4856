import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn.datatools.validate.instances import validate_instances
from tf_panoptic_fpn.formats.breaches import ERROR, RULES, WARNING

NAN = float("nan")


def box(x, y, width, height):
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture
def instances(tmp_path):
    """Two images of 30x40 pixels without any error; a test spoils the tree."""
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    polygon = {"segmentation": [box(5, 5, 20, 10)], "area": 200.5, "bbox": [5.0, 5.0, 20.0, 10.0]}
    counts = [600, 30, 30, 30, 510]  # columns 20 and 22
    rle = {"segmentation": {"size": [30, 40], "counts": counts}, "area": 60, "bbox": [20, 0, 3, 30]}
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 3, "iscrowd": 0, **polygon},
        {"id": 2, "image_id": 0, "category_id": 4, "iscrowd": 0, **rle},
        {"id": 3, "image_id": 1, "category_id": 4, "iscrowd": 1, **rle, "area": 5},
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in range(2)]
    categories = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    return tmp_path, {"images": images, "annotations": annotations, "categories": categories}


def validate(folder, tree):
    (folder / "instances.json").write_text(json.dumps(tree))
    return validate_instances(folder, folder / "instances.json")


def test_a_good_set_has_no_findings(instances):
    folder, tree = instances
    validation = validate(folder, tree)
    assert validation.findings.counts == validation.changes.counts == {}
    assert validation.corrected == tree


def first(tree):
    return tree["annotations"][0]


SPOILERS = [
    ("no_id", lambda tree: first(tree).pop("id")),
    ("repaired", lambda tree: first(tree).update(id="1")),
    ("text_id", lambda tree: first(tree).update(id="3f2b-1")),
    ("entry", lambda tree: first(tree).update(id=[1])),
    ("entry", lambda tree: first(tree).pop("image_id")),
    ("repaired", lambda tree: first(tree).update(category_id="3", image_id=0.0)),
    ("entry", lambda tree: first(tree).update(category_id="three")),
    ("unknown_image", lambda tree: first(tree).update(image_id=7)),
    ("unknown_category", lambda tree: first(tree).update(category_id=7)),
    ("id_twice", lambda tree: tree["annotations"].append({**first(tree), "image_id": 1})),
    ("same_mask", lambda tree: tree["annotations"].append({**first(tree), "id": 9})),
    ("boxes_only", lambda tree: first(tree).pop("segmentation")),
    ("boxes_only", lambda tree: first(tree).update(segmentation=[])),
    ("segmentation", lambda tree: first(tree).update(segmentation=[], bbox=None)),
    ("segmentation", lambda tree: first(tree)["segmentation"][0].append(NAN)),
    ("segmentation", lambda tree: tree["annotations"][1]["segmentation"].update(size=[40, 30])),
    ("part", lambda tree: first(tree)["segmentation"].append([1, 2, 3, 4])),
    ("polygon_points", lambda tree: first(tree).update(segmentation=[[1, 2, 3, 4]])),
    ("segmentation", lambda tree: first(tree).update(segmentation=[box(50, 5, 9, 9)])),
    ("empty_mask", lambda tree: first(tree).update(segmentation=[[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]])),
    ("bad_area", lambda tree: first(tree).update(area=NAN)),
    ("repaired", lambda tree: first(tree).update(area="200")),
    ("no_area", lambda tree: first(tree).pop("area")),
    ("area", lambda tree: first(tree).update(area=231)),
    (None, lambda tree: first(tree).update(area=219)),  # polygons are rasterised in many ways
    ("area", lambda tree: tree["annotations"][1].update(area=61)),
    ("bad_box", lambda tree: first(tree).update(bbox=[5, 5, NAN, 10])),
    ("bad_box", lambda tree: first(tree).update(bbox=[5, 5, -20, 10])),
    ("empty_box", lambda tree: first(tree).update(bbox=[5, 5, 20, 0])),
    ("no_box", lambda tree: first(tree).pop("bbox")),
    ("box", lambda tree: first(tree).update(bbox=[5, 5, 25, 15])),  # corners, not sizes
    ("no_iscrowd", lambda tree: first(tree).pop("iscrowd")),
    ("iscrowd", lambda tree: first(tree).update(iscrowd=-1)),
    ("size", lambda tree: tree["images"][1].update(height=40, width=30)),
    ("missing_file", lambda tree: tree["images"][0].update(file_name="absent.png")),
    ("no_instances", lambda tree: tree["annotations"].pop()),
]


@pytest.mark.parametrize(("rule", "spoil"), SPOILERS)
def test_each_fault_is_found_and_the_corrected_json_has_none(instances, rule, spoil):
    folder, tree = instances
    spoil(tree)
    validation = validate(folder, tree)
    more = {"unused", "no_instances"} | ({"segmentation"} if rule == "size" else set())
    assert set(validation.findings.counts) - more == {rule} - {None} - more
    if rule == "no_instances":
        assert validation.findings.examples[rule] == ["1.png: no annotation"]
    again = validate(folder, validation.corrected)
    assert again.findings.total(ERROR) == 0
    crowds = again.findings.counts.get("all_crowds", 0)  # the other dog may be gone
    kept = rule in ("same_mask", "boxes_only", "text_id")
    assert again.findings.total(WARNING) - crowds == kept
    assert again.changes.counts == {}


def test_corrections(instances):
    folder, tree = instances
    first(tree).update(
        segmentation=[box(-5, 5, 20, 10), [1, 2]], area=1, bbox=[0, 0, 0, 0], iscrowd=True
    )
    tree["annotations"][1].update(area=1, bbox=[0, 0, 1, 1], iscrowd="no", note="kept")
    validation = validate(folder, tree)
    kept = validation.corrected["annotations"]
    assert kept[0]["segmentation"] == [box(-5, 5, 20, 10)]
    assert (kept[0]["area"], kept[0]["bbox"], kept[0]["iscrowd"]) == (1, [0, 5, 15, 10], 1)
    assert (kept[1]["area"], kept[1]["bbox"], kept[1]["iscrowd"]) == (60, [20, 0, 3, 30], 0)
    assert kept[1]["note"] == "kept"
    assert validation.findings.examples["partly_outside"] == [
        "0.png: annotation 1 (cat): by 5.0 pixels"
    ]
    assert validation.changes.counts == {
        "`bbox` of an annotation is corrected": 2,
        "`segmentation` of an annotation is corrected": 1,
        "`area` of an annotation is corrected": 1,
        "`iscrowd` of an annotation is corrected": 2,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("coco_instances", {"unused": 21, "mode": 1}), ("nuclei", {})],
)
def test_real_samples(samples, name, expected):
    folder = samples / name
    validation = validate_instances(folder / "images", folder / "instances.json")
    assert validation.findings.counts == expected
    assert validation.changes.counts == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.sampled_from(["0.png", "1"]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(["size", "counts", "id"]), children, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.sampled_from(["images", "annotations", "annotations", "categories"]),
    st.integers(0, 1),
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "image_id",
                "category_id",
                "iscrowd",
                "area",
                "bbox",
                "segmentation",
                "file_name",
            ]
        ),
        JSON,
        max_size=3,
    ),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_is_checked_to_its_end_and_corrected(instances, key, position, values):
    folder, tree = instances
    tree = copy.deepcopy(tree)
    tree[key][position].update(values)
    validation = validate(folder, tree)
    assert set(validation.findings.counts) <= set(RULES)
    validation.findings.table().encode()
    if all(validation.corrected[key] for key in ("images", "annotations", "categories")):
        again = validate(folder, validation.corrected)
        assert again.findings.total(ERROR) == 0, again.findings.table()
