"""Each kind of annotation, from the command line to the maps."""

import base64
import io
import json

import numpy as np
import pytest
from convert_command import command, convert, named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.commands import convert_data, validate_data
from tf_panoptic_fpn.convert.coco_instances import read_coco_instances
from tf_panoptic_fpn.convert.labelme import read_labelme
from tf_panoptic_fpn.convert.voc import CLASSES
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError


def box(x, y, width, height):
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def coco_tree():
    rle = {"size": [4, 6], "counts": [20, 4]}  # the last column
    annotations = [
        {"category_id": 1, "iscrowd": 0, "segmentation": [box(0, 0, 4, 4)]},
        {"category_id": 2, "iscrowd": 0, "segmentation": [box(1, 1, 1, 1), box(3, 1, 1, 1)]},
        {"category_id": 1, "iscrowd": 1, "segmentation": rle},
        {"category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 2, 2]]},
        {"category_id": 9, "iscrowd": 0, "segmentation": [box(0, 0, 4, 4)]},
    ]
    for i, annotation in enumerate(annotations):
        annotation.update(id=10 + i, image_id=5)
    annotations.append({"id": 20, "image_id": 77})
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


@pytest.fixture
def coco(tmp_path):
    """A folder with an image of 4x6 pixels and the JSON of `coco_tree`."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "images/a.png")
    (tmp_path / "instances.json").write_text(json.dumps(coco_tree()))
    return tmp_path


def coco_arguments(folder):
    images, tree = folder / "images", folder / "instances.json"
    return ["--source=coco", f"--images={images}", f"--instances-json={tree}"]


def test_coco_instances(coco, capsys):
    loaded, categories = convert(coco, *coco_arguments(coco))
    assert named(loaded["a.png"], categories) == [
        ["a", "a", "a", "a", ".", "A"],
        ["a", "b", "a", "b", ".", "A"],
        ["a", "a", "a", "a", ".", "A"],
        ["a", "a", "a", "a", ".", "A"],
    ]
    _, segments = loaded["a.png"]
    assert {i: (s.area, s.bbox_xywh) for i, s in segments.items()} == {
        1: (14, (0, 0, 4, 4)),
        2: (2, (1, 1, 3, 1)),
        3: (4, (5, 0, 1, 4)),
    }
    printed = capsys.readouterr().out
    assert "1 image, 3 segments, 2 thing and 0 stuff categories\n" in printed
    assert "3 annotations left out:\n" in printed
    assert (
        "  instances.json: annotation 20 (image 77): an annotation is for image id 77, " in printed
    )
    assert "annotation 13: a polygon must have 3 or more points" in printed
    assert "annotation 14: unknown category id 9\n" in printed


def test_a_part_that_cannot_be_read_is_named_and_the_rest_is_kept(coco, capsys):
    tree = coco_tree()
    tree["annotations"][1]["segmentation"].append([1, 2, 3, 4])
    (coco / "instances.json").write_text(json.dumps(tree))
    loaded, categories = convert(coco, *coco_arguments(coco))
    assert named(loaded["a.png"], categories)[1] == ["a", "b", "a", "b", ".", "A"]
    printed = capsys.readouterr().out
    assert "3 annotations left out:\n" in printed
    assert "1 part of a mask left out:\n  a.png: annotation 11: a part is left out: " in printed


def test_values_that_can_mean_one_thing_only(coco):
    tree = coco_tree()
    for annotation in tree["annotations"]:
        category_id = str(annotation.get("category_id", 9))
        annotation.update(iscrowd="1", category_id=category_id, bbox=[])
    (coco / "instances.json").write_text(json.dumps(tree))
    notes = read_coco_instances(coco / "images", coco / "instances.json").notes
    assert any("a value of another type, read as what it must mean" in note for note in notes)
    assert "a: every annotation is a crowd, none is learned" in notes
    for annotation in tree["annotations"]:
        annotation["iscrowd"] = "0"
    (coco / "instances.json").write_text(json.dumps(tree))
    source = read_coco_instances(coco / "images", coco / "instances.json")
    assert not any("crowd, none" in note for note in source.notes)
    drawing = source.images[0].draw((4, 6), source.categories)
    assert drawing.segments and not any(is_crowd for _, is_crowd in drawing.segments.values())


def test_stuff_background_and_names(coco, capsys):
    (coco / "names.txt").write_text("a\n")
    flags = ["--stuff=a", "--background=ground", f"--names={coco / 'names.txt'}"]
    loaded, categories = convert(coco, *coco_arguments(coco), *flags)
    assert [(c.name, c.is_thing) for c in categories.categories] == [
        ("a", False),
        ("b", True),
        ("ground", False),
    ]
    assert named(loaded["a.png"], categories)[1] == ["a", "b", "a", "b", "ground", "a"]
    (coco / "names.txt").write_text("a.png\nb\n")
    with pytest.raises(ConfigError, match="1 of 2 names are no annotated image: b"):
        command(convert_data, f"--output={coco / 'new'}", *coco_arguments(coco), *flags)


def test_the_size_must_be_that_of_the_upright_image(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(coco / "images/a.png", exif=exif)
    with pytest.raises(DataError, match=r"says 4x6 \(HxW\), the image is 6x4"):
        convert(coco, *coco_arguments(coco))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--source=coco", "--images=x"], "takes --images, --instances-json. Received: --images"),
        (["--source=voc"], "takes --input. Received: none"),
        (["--source=labelme", "--input=x", "--void=3"], "does not take --void"),
        (
            ["--source=png-pairs", "--images=x", "--semantic-dir=x", "--instance-dir=x"],
            "takes --categories as well",
        ),
        (["--source=labelme", "--input=absent"], "absent: no such folder"),
        (["--source=labelme", "--input=."], "no LabelMe file"),
    ],
)
def test_arguments_must_fit(tmp_path, monkeypatch, arguments, fault):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PanopticError, match=fault):
        command(convert_data, f"--output={tmp_path / 'out'}", *arguments)


def test_the_share_must_be_below_1(coco):
    arguments = [f"--output={coco / 'out'}", *coco_arguments(coco), "--validation-share=1"]
    with pytest.raises(ConfigError, match=r"in \[0, 1\). Received: 1.0"):
        command(convert_data, *arguments)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda tree: tree.pop("images"), "the key `images` is missing"),
        (lambda tree: tree.update(annotations=[3]), "`annotations` must be a list of objects"),
        (
            lambda tree: tree["images"].append(tree["images"][0]),
            "must be unique. Received twice: 5",
        ),
        (lambda tree: tree["images"][0].pop("file_name"), "the key `file_name` is missing"),
        (lambda tree: tree["categories"][0].update(id="x"), "`id` must be int"),
    ],
)
def test_a_bad_instances_json(coco, spoil, fault):
    tree = coco_tree()
    spoil(tree)
    (coco / "instances.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=f"instances.json: .*{fault}"):
        read_coco_instances(coco / "images", coco / "instances.json")


def labelme_shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def write_labelme(path, shapes, image_path="a.png", size=(4, 6)):
    path.parent.mkdir(exist_ok=True, parents=True)
    tree = {"shapes": shapes, "imagePath": image_path, "imageData": None}
    path.write_text(json.dumps({**tree, "imageHeight": size[0], "imageWidth": size[1]}))


def png_text(mask):
    buffer = io.BytesIO()
    Image.fromarray(np.array(mask, np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme_shapes(tmp_path):
    folder = tmp_path / "labels"
    shapes = [
        labelme_shape("cat", [[0, 0], [2, 0], [2, 2], [0, 2]], group_id=1),
        labelme_shape("cat", [[4, 0], [6, 1]], "rectangle", group_id=1),
        labelme_shape("cat", [[0, 3], [2, 4]], "rectangle"),
        labelme_shape("dog", [[4, 3], [5, 4]], "mask", mask=png_text([[1, 0], [1, 1]])),
        labelme_shape("dog", [[2, 3], [4, 4]], "rectangle", flags={"crowd": True}, group_id=1),
        labelme_shape("dog", [[1, 1], [5, 1]], "line"),
        labelme_shape("dog", [[1, 1], [5, 1]]),
    ]
    write_labelme(folder / "a.json", shapes, "..\\photos\\a.png")
    (folder / "other.json").write_text("[]")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "photos/a.png")
    loaded, categories = convert(tmp_path, "--source=labelme", f"--input={folder}")
    assert [(c.id, c.name, c.is_thing) for c in categories.categories] == [
        (1, "cat", True),
        (2, "dog", True),
    ]
    ids, _ = loaded["a.png"]
    assert named(loaded["a.png"], categories) == [
        ["cat", "cat", ".", ".", "cat", "cat"],
        ["cat", "cat", ".", ".", ".", "."],
        [".", ".", ".", ".", ".", "."],
        ["cat", "cat", "DOG", "DOG", ".", "."],
    ]
    # One instance of two shapes, and one beside it.
    assert ids[0, 0] == ids[0, 5] != ids[3, 0]
    report = json.loads((tmp_path / "out/conversion.json").read_text())
    assert report["images_left_out"] == {}
    assert report["notes"] == [
        "1 JSON file of other tools, e.g. other.json: without `shapes` and `imagePath`"
    ]
    assert report["annotations_left_out"]["a.png"] == [
        "shape 3 (dog): the mask leaves the image",
        "shape 5 (dog): a line has no area",
        "shape 6 (dog): a polygon must have 3 or more points of 2 numbers. Received: 4 numbers",
    ]


def test_a_labelme_mask_and_circle(tmp_path):
    shapes = [
        labelme_shape("dog", [[4, 2], [5, 3]], "mask", mask=png_text([[1, 0], [1, 1]])),
        labelme_shape("ball", [[20, 20], [20, 30]], "circle"),
    ]
    write_labelme(tmp_path / "in/b/a.json", shapes, size=(40, 40))
    Image.new("RGB", (40, 40)).save(tmp_path / "in/b/a.png")
    loaded, categories = convert(tmp_path, "--source=labelme", f"--input={tmp_path / 'in'}")
    map_ = np.array(named(loaded["a.png"], categories))
    np.testing.assert_array_equal(np.argwhere(map_ == "dog"), [[2, 4], [3, 4], [3, 5]])
    y, x = np.mgrid[:40, :40] + 0.5
    distance = np.hypot(y - 20, x - 20)
    assert (map_[distance < 9] == "ball").all()
    assert not (map_[distance > 11] == "ball").any()
    assert (map_ == "ball").sum() == pytest.approx(np.pi * 100, rel=0.05)


def test_labels_must_be_categories(tmp_path):
    shapes = [
        labelme_shape(name, [[x, 0], [x + 2, 4]], "rectangle")
        for x, name in enumerate(("cat", "cta"))
    ]
    write_labelme(tmp_path / "a.json", shapes)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    categories = CategoryTable((Category(7, "cat", True),))
    (image,) = read_labelme(tmp_path, categories).images
    drawing = image.draw((4, 6), categories)
    assert drawing.segments == {1: (7, False)}
    assert drawing.left_out == ("shape 1 (cta): the label is not a category",)
    with pytest.raises(DataError, match=r"says 4x6 \(HxW\), the image is 6x4"):
        image.draw((6, 4), categories)


def save_palette(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(pixels, np.uint8), "L").convert("P")
    image.putdata(np.ravel(pixels).tolist())
    image.putpalette([i // 3 * 7 % 256 for i in range(768)])
    image.save(path)


def test_voc(tmp_path):
    voc = tmp_path / "VOC2012"
    (voc / "JPEGImages").mkdir(parents=True)
    for name in ("2007_1", "2007_2", "2007_3"):
        Image.new("RGB", (4, 2)).save(voc / f"JPEGImages/{name}.jpg")
    for name in ("2007_1", "2007_2"):
        save_palette([[0, 15, 255, 15], [0, 15, 255, 7]], voc / f"SegmentationClass/{name}.png")
    save_palette([[0, 1, 255, 2], [0, 1, 255, 3]], voc / "SegmentationObject/2007_1.png")
    loaded, categories = convert(
        tmp_path, "--source=voc", f"--input={voc}", "--background=background"
    )
    assert [c.name for c in categories.things] == list(CLASSES)
    assert list(loaded) == ["2007_1.jpg"]
    assert named(loaded["2007_1.jpg"], categories) == [
        ["background", "person", ".", "person"],
        ["background", "person", ".", "car"],
    ]
    assert len(loaded["2007_1.jpg"][1]) == 4
    report = json.loads((tmp_path / "out/conversion.json").read_text())
    assert list(report["images_left_out"]) == ["2007_2.png"]


def test_png_pairs_of_16_bits(tmp_path):
    categories = [
        {"id": 0, "name": "ground", "isthing": 0},
        {"id": 300, "name": "leaf", "isthing": 1},
    ]
    (tmp_path / "categories.json").write_text(json.dumps(categories))
    for name in ("images/x", "semantic/x", "instance/x"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (3, 1)).save(tmp_path / "images/x/a.bmp")
    semantic = np.array([[300, 0, 65535]], np.uint16)
    Image.fromarray(semantic).save(tmp_path / "semantic/x/a.png")
    Image.fromarray(np.array([[255, 0, 9]], np.uint16)).save(tmp_path / "instance/x/a.png")
    folders = [
        f"--{flag}={tmp_path / name}"
        for flag, name in (
            ("images", "images"),
            ("semantic-dir", "semantic"),
            ("instance-dir", "instance"),
            ("categories", "categories.json"),
        )
    ]
    loaded, table = convert(tmp_path, "--source=png-pairs", *folders, "--void=65535")
    assert named(loaded["x/a.bmp"], table) == [["leaf", "ground", "."]]
    Image.new("RGB", (3, 1)).save(tmp_path / "semantic/x/a.png")
    with pytest.raises(DataError, match=r"with a palette. Received: PNG, mode RGB"):
        command(convert_data, "--source=png-pairs", f"--output={tmp_path / 'new'}", *folders)
    (tmp_path / "semantic/x/a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"a.png: the label map cannot be decoded"):
        command(convert_data, "--source=png-pairs", f"--output={tmp_path / 'new'}", *folders)


@pytest.mark.parametrize(("name", "num_images", "num_segments"), [("nuclei", 40, 2034)])
def test_real_instances_become_a_set_that_validates(
    samples, tmp_path, name, num_images, num_segments
):
    folder = samples / name
    arguments = [f"--images={folder / 'images'}", f"--instances-json={folder / 'instances.json'}"]
    loaded, _ = convert(tmp_path, "--source=coco", *arguments)
    assert len(loaded) == num_images
    # Its masks do not overlap, so that each keeps its area.
    stated = json.loads((folder / "instances.json").read_text())["annotations"]
    areas = [s.area for _, segments in loaded.values() for s in segments.values()]
    assert sorted(areas) == sorted(annotation["area"] for annotation in stated)
    assert len(areas) == num_segments
    out = tmp_path / "out"
    paths = (f"--images={out}/images", f"--panoptic-json={out}/panoptic.json")
    command(validate_data, *paths, f"--panoptic-dir={out}/panoptic")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["label", "points", "shape_type", "mask", "group_id", "flags"]),
            children,
        )
    ),
    max_leaves=10,
)
SHAPE = st.fixed_dictionaries(
    {
        "label": st.sampled_from("ab") | JSON,
        "points": st.lists(st.tuples(st.floats(-9, 9), st.integers(-9, 9)), max_size=5)
        | st.lists(st.tuples(st.integers(), st.floats()), max_size=5)
        | st.just([[10**400, 0], [0, 1], [1, 0]])
        | JSON,
        "shape_type": st.sampled_from(["polygon", "rectangle", "circle", "mask"]) | JSON,
        "group_id": st.none() | st.integers(0, 1) | JSON,
        "flags": JSON,
        "mask": st.just(png_text([[1, 1]])) | st.text(max_size=9) | JSON,
    }
)


@given(st.lists(SHAPE | JSON, max_size=4) | JSON)
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_labelme_json_is_drawn_or_a_data_error(tmp_path, shapes):
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"}))
    try:
        source = read_labelme(tmp_path)
        drawing = source.images[0].draw((4, 6), source.categories)
    except DataError:
        return
    assert set(np.unique(drawing.ids)) - {0} == set(drawing.segments)
