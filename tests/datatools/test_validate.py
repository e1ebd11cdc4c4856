"""Checks of COCO panoptic splits; those of instances are in `test_validate_instances`."""

import argparse
import copy
import dataclasses
import json
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tf_panoptic_fpn.commands import validate_data
from tf_panoptic_fpn.datatools.validate.files import check_image, read_map
from tf_panoptic_fpn.datatools.validate.findings import Findings
from tf_panoptic_fpn.datatools.validate.panoptic import validate_panoptic
from tf_panoptic_fpn.datatools.validate.split import validate_split
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError
from tf_panoptic_fpn.formats.breaches import ERROR, RULES
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.formats.records import load_segments
from tf_panoptic_fpn.masks.components import count_parts

WALL, CAR, PERSON, SKY = 1, 3, 7, 9
IDS = np.array([[1] * 8] * 4 + [[0, 2, 2, 2, 2, 2, 300, 300]] * 4)
# Areas 32, 20 and 8; a void column of 4.
BOXES = {1: [0, 0, 8, 4], 2: [1, 4, 5, 4], 300: [6, 4, 2, 4]}


@pytest.fixture
def pair(tiny):
    """Two images of 8x8 pixels without any error; a test spoils the JSON or a file."""
    for number in range(2):
        tiny.add(IDS, {1: SKY, 2: CAR, 300: PERSON}, crowd=(300,))
        for segment in tiny.tree["annotations"][number]["segments_info"]:
            segment["bbox"] = BOXES[segment["id"]]
    tiny.add(np.full((8, 8), 4), {4: WALL})
    tiny.tree["annotations"][2]["segments_info"][0]["bbox"] = [0, 0, 8, 8]
    return tiny


def validate(data):
    data.json_path.write_text(json.dumps(data.tree))
    return validate_panoptic(data.images_dir, data.json_path, data.panoptic_dir)


def segment(tree, i=0):
    return tree["annotations"][0]["segments_info"][i]


def test_a_good_set_has_no_findings(pair):
    validation = validate(pair)
    # The persons of this set are 8 pixels, and crowds.
    assert validation.findings.counts == {"tiny": 2, "all_crowds": 1}
    assert (validation.num_images, validation.void, validation.pixels) == (3, 8, 192)
    assert validation.corrected == pair.tree
    assert validation.changes.counts == {}


SPOILERS = [
    ({"list", "unknown_image", "unused"}, lambda tree: tree.update(images={})),
    ({"list", "unknown_category"}, lambda tree: tree.update(categories=[])),
    ({"entry"}, lambda tree: tree["images"].append("x")),
    ({"entry"}, lambda tree: tree["images"].append({"id": 5, "height": 8, "width": 8})),
    ({"entry"}, lambda tree: tree["images"].append({"id": 5, "file_name": "x", "height": 0})),
    ({"entry"}, lambda tree: tree["annotations"].append({"image_id": None})),
    ({"entry"}, lambda tree: tree["annotations"].append({"image_id": 100})),
    ({"entry"}, lambda tree: tree["annotations"][0]["segments_info"].append(5)),
    ({"entry"}, lambda tree: tree["annotations"][0]["segments_info"].append({"id": 7})),
    ({"entry"}, lambda tree: tree["categories"].append({"id": "nine", "name": "x"})),
    (
        {"repaired", "category_twice"},
        lambda tree: tree["categories"].append({"id": "9", "name": "x", "isthing": 1}),
    ),
    ({"category_twice"}, lambda tree: tree["categories"].append({"id": SKY, "name": "x"})),
    (
        {"isthing", "unknown_category"},
        lambda tree: tree["categories"][0].update(isthing=2),
    ),
    (
        {"no_isthing"},
        lambda tree: tree["categories"][0].pop("isthing") and None,
    ),
    ({"name_twice"}, lambda tree: tree["categories"][1].update(name="sky")),
    ({"unused"}, lambda tree: tree["categories"].append({"id": 4, "name": "x", "isthing": 1})),
    ({"image_twice"}, lambda tree: tree["images"].append({**tree["images"][0], "file_name": "x"})),
    (
        {"file_twice"},
        lambda tree: tree["images"].append({**tree["images"][0], "id": 5}),
    ),
    (
        {"file_twice", "no_annotation"},
        lambda tree: tree["annotations"][1].update(file_name="0_map.png"),
    ),
    ({"annotation_twice"}, lambda tree: tree["annotations"].append(tree["annotations"][0])),
    (
        {"unknown_image"},
        lambda tree: tree["annotations"].append({**tree["annotations"][0], "image_id": 5}),
    ),
    ({"no_annotation"}, lambda tree: tree["annotations"].pop(0)),
    (
        {"no_segments", "unlisted_id"},
        lambda tree: tree["annotations"][0].update(segments_info=[]),
    ),
    (
        {"unknown_category"},
        lambda tree: segment(tree).update(category_id=4),
    ),
    ({"segment_twice"}, lambda tree: tree["annotations"][0]["segments_info"].append(segment(tree))),
    ({"segment_id", "unlisted_id"}, lambda tree: segment(tree).update(id=1 << 24)),
    ({"unlisted_id"}, lambda tree: tree["annotations"][0]["segments_info"].pop(0)),
    (
        {"absent_id"},
        lambda tree: tree["annotations"][0]["segments_info"].append({**segment(tree), "id": 5}),
    ),
    ({"area"}, lambda tree: segment(tree).update(area=31)),
    ({"bad_area"}, lambda tree: segment(tree).update(area=-1)),
    ({"bad_area"}, lambda tree: segment(tree).update(area=float("nan"))),
    ({"no_area"}, lambda tree: segment(tree).pop("area")),
    ({"box"}, lambda tree: segment(tree).update(bbox=[0, 0, 8, 6])),
    (set(), lambda tree: segment(tree).update(bbox=[0, 0, 7, 3])),  # the last pixel left out
    ({"no_box"}, lambda tree: segment(tree).pop("bbox")),
    ({"empty_box"}, lambda tree: segment(tree).update(bbox=[0, 0, 8, 0])),
    ({"empty_box"}, lambda tree: segment(tree).update(bbox=[])),
    ({"repaired"}, lambda tree: segment(tree).update(bbox=["0", 0, 8, "4"], area="32")),
    ({"repaired"}, lambda tree: segment(tree).update(id="1", category_id=9.0, iscrowd=False)),
    ({"repaired"}, lambda tree: tree["annotations"][0].update(image_id="100")),
    ({"path"}, lambda tree: tree["images"][0].update(file_name=".\\0.png")),
    ({"path"}, lambda tree: tree["annotations"][0].update(file_name="./0_map.png")),
    ({"bad_box"}, lambda tree: segment(tree).update(bbox=[0, 0, 8, float("nan")])),
    ({"bad_box"}, lambda tree: segment(tree).update(bbox=[0, 0, -8, 4])),
    ({"bad_box"}, lambda tree: segment(tree).update(bbox=[0, 0, 8])),
    ({"iscrowd"}, lambda tree: segment(tree).update(iscrowd=2)),
    ({"no_iscrowd"}, lambda tree: segment(tree).pop("iscrowd") and None),
    ({"crowd_stuff"}, lambda tree: segment(tree).update(iscrowd=1)),
    ({"size"}, lambda tree: tree["images"][0].update(height=9)),
    ({"missing_file"}, lambda tree: tree["images"][0].update(file_name="absent.png")),
    ({"missing_file"}, lambda tree: tree["annotations"][0].update(file_name="\0\ud800\n")),
]


@pytest.mark.parametrize(("rules", "spoil"), SPOILERS)
def test_each_fault_is_found_and_the_corrected_json_has_none(pair, rules, spoil):
    spoil(pair.tree)
    original = copy.deepcopy(pair.tree)
    validation = validate(pair)
    assert set(validation.findings.counts) - {"tiny", "all_crowds"} == rules
    assert pair.tree == original or rules == {"bad_box"} or rules == {"bad_area"}  # NaN
    assert "\n" not in "".join(
        example for e in validation.findings.examples.values() for example in e
    )
    validation.findings.table().encode()
    if not validation.corrected["images"] or not validation.corrected["categories"]:
        assert "list" in rules
        return
    pair.tree = validation.corrected
    again = validate(pair)
    assert again.findings.total(ERROR) == 0
    assert again.changes.counts == {}
    split = pair.read()
    for record in split.images:
        load_segments(record)
    if rules:
        assert validation.changes.counts or rules <= {"no_isthing", "name_twice", "unused"}


@pytest.mark.parametrize(
    ("text", "rule"), [("{", "json"), ("[1]", "json"), ("[" * 9999, "json"), ("{}", "list")]
)
def test_a_broken_json_is_an_error_of_the_data(tiny, text, rule):
    tiny.json_path.write_text(text)
    validation = validate_panoptic(tiny.images_dir, tiny.json_path, tiny.panoptic_dir)
    assert set(validation.findings.counts) == {rule}
    with pytest.raises(DataError, match=r"absent.json: cannot be read: No such file"):
        validate_panoptic(tiny.images_dir, tiny.json_path.with_name("absent.json"), "")


def save(array, path, **options):
    Image.fromarray(np.array(array)).save(path, **options)


def test_maps_of_another_format(tmp_path):
    path = tmp_path / "map.png"
    rgb = np.zeros((3, 4, 3), np.uint8)
    for array, kind in (
        (rgb[..., 0], "8-bit grey"),
        (np.zeros((3, 4), np.uint16), "16-bit grey"),
        (np.zeros((3, 4, 4), np.uint8), "8-bit RGBA"),
    ):
        save(array, path)
        assert read_map(path) == ([("map_format", kind)], None)
    Image.fromarray(rgb).quantize(4).save(path)
    ((rule, kind),), ids = read_map(path)
    assert (rule, kind.split()[1], ids) == ("map_format", "palette", None)
    save(rgb, path, format="JPEG")
    assert read_map(path)[0][0][0] == "undecodable"
    # Pillow reads 16-bit colours as 8-bit ones, without their lower halves.
    write_panoptic_png(np.ones((3, 4), int), path)
    data = bytearray(path.read_bytes())
    data[24] = 16
    path.write_bytes(bytes(data))
    assert read_map(path) == ([("map_format", "16-bit RGB")], None)
    path.write_bytes(b"")
    assert read_map(path)[0][0][0] == "empty_file"
    write_panoptic_png(np.full((3, 4), 70000), path)
    breaches, ids = read_map(path)
    assert breaches == []
    assert (ids == 70000).all()
    path.write_bytes(path.read_bytes()[:-40])
    assert read_map(path)[0][0][0] == "undecodable"


def test_images(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = tmp_path / "a.jpg"

    def rules(stated=(20, 30), file=path):
        breaches, size, _ = check_image(file, stated)
        return dict(breaches), size

    save(noise, path)
    assert rules() == ({}, (20, 30))
    assert rules((30, 20)) == (
        {"size": "the JSON says 30x20 (HxW), the image is 20x30"},
        (20, 30),
    )
    assert rules(None) == ({}, (20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(noise, path, exif=exif)
    assert rules((20, 30)) == (
        {
            "rotated": "orientation 6, upright 20x30 (width x height)",
            "size": "the JSON says 20x30 (HxW), the image is 30x20 upright (EXIF orientation)",
        },
        (30, 20),
    )
    save(noise, path, format="PNG")
    assert rules() == ({"extension": "the content is PNG"}, (20, 30))
    save(noise[..., 0], path)
    assert rules()[0] == {"mode": "JPEG, mode L"}
    save(noise, path)
    path.write_bytes(path.read_bytes()[:-200])
    assert (list(rules()[0]), rules()[1]) == (["undecodable"], None)
    path.write_bytes(b"")
    assert list(rules()[0]) == ["empty_file"]
    path.unlink()
    assert list(rules()[0]) == ["missing_file"]
    save(noise, path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.warns(Image.DecompressionBombWarning):
        assert rules()[0] == {"large": "30x20 (width x height)"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert list(rules()[0]) == ["bomb"]


@given(st.binary(max_size=60), st.integers(0, 90), st.integers(0, 255))
@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_an_image_or_a_breach(tmp_path, data, position, value):
    path, good = tmp_path / "a.png", tmp_path / "good.png"
    if not good.exists():
        write_panoptic_png(np.arange(6).reshape(2, 3), good)
    damaged = bytearray(good.read_bytes())
    if position < len(damaged):
        damaged[position] = value
    for content in (data, bytes(damaged), bytes(damaged)[:position]):
        path.write_bytes(content)
        breaches, size, _ = check_image(path, (2, 3))
        assert (size is None) == any(
            rule in ("undecodable", "empty_file", "bomb") for rule, _ in breaches
        )
        breaches, ids = read_map(path)
        assert (ids is None) == bool(breaches)


def flood_parts(ids, segment_id):
    """Counts parts by filling one after the other."""
    left = {tuple(p) for p in np.argwhere(ids == segment_id)}
    count = 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
    return count


@given(
    arrays.arrays(
        np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
    )
)
@settings(deadline=None)
def test_parts_are_those_that_filling_finds(ids):
    assert count_parts(ids, [0, 1, 2, 3]) == [flood_parts(ids, i) for i in (0, 1, 2)] + [0]


def test_parts_of_a_spiral():
    ids = np.zeros((40, 40), np.int32)
    for i in range(0, 18, 2):  # rings, joined into a spiral
        ids[i, i : 40 - i] = ids[39 - i, i : 40 - i] = 1
        ids[i : 40 - i, 39 - i] = ids[i + 2 : 40 - i, i] = 1
        ids[i + 2, i : i + 2] = 1
    assert count_parts(ids, [1]) == [flood_parts(ids, 1)]
    combs = np.tile([[1, 0], [1, 1]], (15, 20)).astype(np.int32)
    assert count_parts(combs, [1, 0]) == [1, 300]


def test_notes(tiny):
    ids = np.zeros((20, 20), int)
    ids[:8, :8] = ids[12:, 12:] = 1
    ids[10, :5] = 2
    tiny.add(ids, {1: CAR, 2: PERSON})
    findings = validate(tiny).findings
    expected = {
        "parts": ["0.png: segment 1 (car): 2"],
        "tiny": ["0.png: segment 2 (person): 5"],
        "void": ["0.png: 67 %"],
        "unused": ["sky (id 9)", "wall (id 1)"],
    }
    assert {rule: findings.examples[rule] for rule in expected} == expected


def test_the_same_image_twice_and_in_both_splits(pair):
    (pair.images_dir / "1.png").write_bytes((pair.images_dir / "0.png").read_bytes())
    first, second = validate(pair), validate(pair)
    assert first.findings.examples["same_image"] == ["1.png and 0.png"]
    second.check_leak(first)
    assert second.findings.examples["leak"] == ["0.png and 0.png", "2.png and 2.png"]


def test_the_table():
    findings = Findings()
    for i in range(5):
        findings.add("unused", f"category {i}")
    findings.add("area", "a\nb\ud800 " + "long " * 40)
    lines = findings.table().splitlines()
    assert lines[0] == "error         1  the area is not that of the mask"
    assert lines[1].startswith(" " * 19 + "a?b? long")
    assert max(map(len, lines)) <= 100
    assert lines[-4] == "note          5  a category is never used"
    assert [line.strip() for line in lines[-3:]] == ["category 0", "category 1", "category 2"]
    assert (findings.total("error"), findings.total("note")) == (1, 5)


def command(*arguments):
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser()
    validate_data.add_arguments(parser)
    try:
        validate_data.run(parser.parse_args([str(argument) for argument in arguments]))
    except SystemExit as stop:
        return stop.code
    return 0


def panoptic_arguments(data):
    data.json_path.write_text(json.dumps(data.tree))
    return (
        f"--images={data.images_dir}",
        f"--panoptic-json={data.json_path}",
        f"--panoptic-dir={data.panoptic_dir}",
    )


def test_the_command_fixes(pair, tmp_path, capsys):
    assert command(*panoptic_arguments(pair)) == 0
    segment(pair.tree, 1).update(area=3)
    pair.tree["annotations"][1]["segments_info"].pop(0)
    pair.tree["info"] = {"kept": True}
    out = tmp_path / "fixed.json"
    capsys.readouterr()
    assert command(*panoptic_arguments(pair), f"--fix={out}") == 1
    printed = capsys.readouterr().out.splitlines()
    assert "                   0.png: segment 2 (car): 3 in the JSON, 20 in the mask" in printed
    assert any(
        line.startswith("3 images, 4.2 % void; errors 2, warnings 1, notes") for line in printed
    )
    assert f"{out}: 2 images, 4 segments" in printed
    assert (
        "              1  `area` of a segment is corrected, e.g. 0.png: segment 2 (car): 20"
        in printed
    )
    assert any("1  an image is left out, e.g. 1.png: the map holds ids" in line for line in printed)
    fixed = json.loads(out.read_text())
    assert fixed["info"] == {"kept": True}
    assert [image["file_name"] for image in fixed["images"]] == ["0.png", "2.png"]
    assert fixed["annotations"][0]["segments_info"][1]["area"] == 20
    pair.tree = fixed
    assert command(*panoptic_arguments(pair)) == 0
    with pytest.raises(ConfigError, match=r"exists; --fix writes a new file"):
        command(*panoptic_arguments(pair), f"--fix={out}")
    pair.tree = {}
    with pytest.raises(DataError, match=r"panoptic.json: nothing is left to write"):
        command(*panoptic_arguments(pair), f"--fix={tmp_path / 'none.json'}")


def test_arguments_must_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"must be given. Received: none"):
        command()
    with pytest.raises(ConfigError, match=r"Received: --config, --images"):
        command("--config=a", "--images=b")
    with pytest.raises(ConfigError, match=r"--fix takes one split"):
        command("--config=a", "--fix=b")


@pytest.fixture
def config(pair, tmp_path):
    """A configuration whose two splits are the set of `pair`, in two files."""
    splits = []
    for json_path in (pair.json_path, pair.json_path.with_name("again.json")):
        json_path.write_text(json.dumps(pair.tree))
        name = json_path.name
        splits.append(f"{{images: images, panoptic_json: {name}, panoptic_dir: panoptic}}")
    path = tmp_path / "config.yaml"
    path.write_text(f"data: {{root: {tmp_path}, train: {splits[0]}, validation: {splits[1]}}}")
    return path


def test_both_splits_of_a_configuration(config, capsys):
    assert command(f"--config={config}") == 1
    train, validation = capsys.readouterr().out.split("validation\n")
    assert train.startswith("train\n")
    assert "an image is in both splits" not in train
    assert "error         3  an image is in both splits" in validation


def test_training_files_for_validation_are_said_and_accepted(config, capsys):
    config.write_text(config.read_text().replace("again.json", "panoptic.json"))
    assert command(f"--config={config}") == 0
    printed = capsys.readouterr().out
    assert printed.endswith(
        "validation: the files of training; figures on them say nothing of new images\n"
    )
    assert "both splits" not in printed


def test_other_formats_are_checked_through_their_reader(pair):
    segment(pair.tree).update(area=31)
    split = pair.read()
    findings = validate_split(lambda: split).findings
    assert findings.examples["area"] == ["0.png: segment 1 (sky): 31 in the JSON, 32 in the mask"]
    assert set(findings.counts) == {"area", "tiny", "all_crowds"}
    pathlib.Path(split.images[1].image_path).write_bytes(b"")
    pathlib.Path(split.images[2].panoptic_path).write_bytes(b"")
    counts = validate_split(lambda: split).findings.counts
    assert counts == {"area": 1, "tiny": 1, "all_crowds": 1, "empty_file": 1, "other": 1}
    pair.tree["images"].clear()
    findings = validate_split(pair.read).findings
    assert findings.examples == {"other": [f"{pair.json_path}: the data set has no images"]}


def test_label_maps_have_classes_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the table cuts long lines
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i, label in enumerate((1, 9)):
        save(np.full((6, 8, 3), i, np.uint8), tmp_path / f"images/{i}.png")
        save(np.full((6, 8), label, np.uint8), tmp_path / f"labels/{i}.png")
    (tmp_path / "classes.yaml").write_text("[{id: 1, name: road}, {id: 4, name: sky}]")
    split = "{format: label_maps, images: images, label_dir: labels, categories: classes.yaml}"
    (tmp_path / "config.yaml").write_text(
        "model: {num_thing_classes: 0, num_stuff_classes: 2, tasks: [semantic]}\n"
        f"data: {{train: {split}, validation: {split}}}"
    )
    assert command("--config=config.yaml") == 1
    text = "".join(capsys.readouterr().out.split())  # the table breaks long paths
    assert text.startswith("trainerror1thereaderrefusesthedata1.png:")
    assert "labels/1.png:themapholdsunknownlabels:9note1acategoryisneverused" in text


@pytest.mark.parametrize("name", ["coco_panoptic_2", "cocostuff_13"])
def test_real_samples_reproduce_their_areas(samples, name):
    folder = samples / name
    validation = validate_panoptic(folder / "images", folder / "panoptic.json", folder / "panoptic")
    assert set(validation.findings.counts) == {"unused", "parts"}
    assert validation.changes.counts == {}
    assert validation.corrected == json.loads((folder / "panoptic.json").read_text())


KEYS = ("images", "annotations", "categories", "id", "file_name", "height", "image_id", "iscrowd")
KEYS += ("segments_info", "category_id", "area", "bbox", "isthing", "name", "width")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 9)
    | st.floats()
    | st.sampled_from(["0.png", "\0", "0_map.png"]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS), children, max_size=6)
    ),
    max_leaves=8,
)


@st.composite
def spoiled(draw, tree):
    """The tree with some of its values replaced or dropped."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], (dict, list)) and draw(st.integers(0, 5)):
                node = node[key]
            elif draw(st.booleans()):
                del node[key]
                break
            else:
                node[key] = draw(JSON)
                break
    return tree


@given(st.data())
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_is_checked_to_its_end_and_corrected(pair, data):
    original = pair.tree
    pair.tree = data.draw(spoiled(original) | JSON)
    try:
        validation = validate(pair)
        assert set(validation.findings.counts) <= set(RULES)
        validation.findings.table().encode()
        corrected = validation.corrected
        try:
            split = pair.read()
            readable = [load_segments(record) for record in split.images]
        except PanopticError:
            assert validation.findings.total(ERROR)
        except (TypeError, ValueError):  # boxes and areas that are no numbers are not refused
            assert validation.findings.total(ERROR)
        else:
            assert readable
        if corrected and corrected["images"] and corrected["categories"]:
            pair.tree = corrected
            again = validate(pair)
            assert again.findings.total(ERROR) == 0, again.findings.table()
            assert len(
                read_coco_panoptic(pair.images_dir, pair.json_path, pair.panoptic_dir).images
            ) == len(corrected["images"])
    finally:
        pair.tree = original


def test_segments_of_published_maps_have_the_ids_of_their_file(pair):
    split = pair.read()
    record = dataclasses.replace(split.images[0], map_format="grey", void_values=(0,))
    segments = tuple(dataclasses.replace(s, id=s.id + 1, area=1) for s in record.segments)
    save(IDS.astype(np.uint16), record.panoptic_path)
    record = dataclasses.replace(record, segments=segments)
    findings = validate_split(lambda: dataclasses.replace(split, images=(record,))).findings
    assert "0.png: segment 300 (person): 1 in the JSON, 8 in the mask" in findings.examples["area"]
