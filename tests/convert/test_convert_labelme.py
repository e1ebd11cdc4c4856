"""LabelMe's files as LabelMe, X-AnyLabeling and their users leave them."""

import base64
import json

import numpy as np
import pytest
from convert_command import command, convert, drawn
from PIL import Image

from tf_panoptic_fpn.commands import convert_data
from tf_panoptic_fpn.convert.labelme import read_labelme
from tf_panoptic_fpn.errors import DataError

RED = (200, 30, 40)


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def rectangle(label, x1, y1, x2, y2):
    return shape(label, [[x1, y1], [x2, y2]], "rectangle")


def write(path, shapes, image_path="a.png", size=(4, 6), encoding="utf-8", **more):
    """A LabelMe file for an image of 4x6 pixels."""
    path.parent.mkdir(exist_ok=True, parents=True)
    tree = {"shapes": shapes, "imagePath": image_path, "imageData": None, **more}
    tree |= {"imageHeight": size[0], "imageWidth": size[1]}
    path.write_text(json.dumps(tree), encoding=encoding)


def save_image(path, size=(4, 6), **more):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size[::-1], RED).save(path, **more)


@pytest.fixture
def folder(tmp_path):
    save_image(tmp_path / "in/a.png")
    return tmp_path / "in"


def test_ignore_is_void_and_background_is_not_annotated(folder, tmp_path, capsys):
    write(
        folder / "a.json",
        [
            rectangle("cat", 0, 0, 4, 4),
            rectangle("__ignore__", 0, 0, 1, 2),  # smaller: on top
            rectangle("_background_", 1, 0, 2, 2),
            rectangle("__ignore__", 4, 0, 6, 3),
        ],
    )
    images, categories = convert(tmp_path, f"--input={folder}", "--background=ground")
    assert [c.name for c in categories.categories] == ["cat", "ground"]
    assert drawn(images["a.png"], categories) == [".gcc..", ".gcc..", "cccc..", "ccccgg"]
    printed = capsys.readouterr().out
    assert "\n2 shapes __ignore__: void\n1 shape _background_: not annotated\n" in printed


def test_without_a_background_both_are_void_and_as_categories_they_are_classes(folder, tmp_path):
    shapes = [rectangle("__ignore__", 0, 0, 2, 4), rectangle("cat", 2, 0, 3, 4)]
    write(folder / "a.json", [*shapes, rectangle("_background_", 4, 0, 6, 4)])
    images, categories = convert(tmp_path, f"--input={folder}")
    assert drawn(images["a.png"], categories) == ["..c..."] * 4
    (tmp_path / "categories.json").write_text(
        json.dumps(
            [{"id": i, "name": n, "isthing": 1} for i, n in enumerate(("__ignore__", "cat"))]
        )
    )
    arguments = (f"--input={folder}", f"--categories={tmp_path / 'categories.json'}")
    (tmp_path / "out").rename(tmp_path / "before")
    images, categories = convert(tmp_path, *arguments)
    assert drawn(images["a.png"], categories) == ["__c..."] * 4


SQUARE = [[1, 1], [3, 1], [3, 3], [1, 3]]


@pytest.mark.parametrize("kind", ["rectangle", "rotation", "oriented_rectangle", "polygon", None])
def test_four_points_are_the_outline(folder, tmp_path, kind):
    write(folder / "a.json", [shape("cat", SQUARE, kind)])
    images, categories = convert(tmp_path, f"--input={folder}")
    assert drawn(images["a.png"], categories) == ["......", ".cc...", ".cc...", "......"]


def test_a_turned_rectangle_is_not_its_box(tmp_path):
    save_image(tmp_path / "in/a.png", (40, 40))
    diamond = [[20, 4], [36, 20], [20, 36], [4, 20]]
    write(tmp_path / "in/a.json", [shape("cat", diamond, "rotation")], size=(40, 40))
    images, _ = convert(tmp_path, f"--input={tmp_path / 'in'}")
    ids, _ = images["a.png"]
    y, x = np.mgrid[:40, :40] + 0.5
    distance = abs(y - 20) + abs(x - 20)
    assert ids[distance < 15].all()
    assert not ids[distance > 17].any()


def test_a_rectangle_of_three_points(folder, tmp_path):
    write(folder / "a.json", [shape("cat", SQUARE[:3], "rectangle"), rectangle("cat", 0, 0, 1, 1)])
    convert(tmp_path, f"--input={folder}")
    report = json.loads((tmp_path / "out/conversion.json").read_text())
    assert report["annotations_left_out"]["a.png"] == [
        "shape 0 (cat): a rectangle must have 2 points or 4. Received: 3"
    ]


def test_labels_of_points_and_lines_are_no_classes(folder, tmp_path, capsys):
    shapes = [rectangle("cat", 0, 0, 2, 2), shape("eye", [[1, 1]], "point")]
    write(folder / "a.json", [*shapes, shape("cat", [[1, 1], [3, 3]], "line")])
    _, categories = convert(tmp_path, f"--input={folder}")
    assert [c.name for c in categories.categories] == ["cat"]
    printed = capsys.readouterr().out
    assert "label eye: only points and lines, no class\n" in printed
    assert "  a.png: shape 1 (eye): a point has no area\n" in printed
    assert "  a.png: shape 2 (cat): a line has no area\n" in printed


@pytest.mark.parametrize("image_path", ["C:\\data\\a.png", "..\\elsewhere\\a.png", "/none/a.png"])
def test_an_image_beside_its_file_is_found(folder, tmp_path, image_path):
    write(folder / "a.json", [rectangle("cat", 0, 0, 2, 2)], image_path)
    assert list(convert(tmp_path, f"--input={folder}")[0]) == ["a.png"]


@pytest.mark.parametrize(("kind", "written"), [("PNG", "b.png"), ("JPEG", "b.jpg")])
def test_an_embedded_image_is_written_out(tmp_path, capsys, kind, written):
    save_image(tmp_path / "image", format=kind)
    content = (tmp_path / "image").read_bytes()
    write(
        tmp_path / "in/sub/b.json",
        [rectangle("cat", 0, 0, 6, 4)],
        "..\\lost\\b.png",
        imageData=base64.b64encode(content).decode(),
    )
    images, _ = convert(tmp_path, f"--input={tmp_path / 'in'}")
    assert list(images) == [written]
    assert (tmp_path / "out/images" / written).read_bytes() == content
    assert "1 image taken from `imageData`: none at `imagePath`\n" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"--image-files=link or copy writes it out"):
        arguments = (f"--input={tmp_path / 'in'}", "--image-files=reference")
        command(convert_data, f"--output={tmp_path / 'new'}", *arguments)


@pytest.mark.parametrize(
    ("data", "fault"),
    [("!!", "`imageData` must be base64"), ("aGFsbG8=", "the image cannot be decoded")],
)
def test_a_damaged_embedded_image(tmp_path, data, fault):
    write(tmp_path / "in/b.json", [rectangle("cat", 0, 0, 6, 4)], "b.png", imageData=data)
    with pytest.raises(DataError, match=f"b.png: .*{fault}"):
        convert(tmp_path, f"--input={tmp_path / 'in'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark(folder, tmp_path, encoding):
    write(folder / "a.json", [rectangle("猫", 0, 0, 2, 2)], encoding=encoding)
    _, categories = convert(tmp_path, f"--input={folder}")
    assert [c.name for c in categories.categories] == ["猫"]


def test_what_is_left_out_of_a_folder_is_said(folder, tmp_path, capsys):
    write(folder / "a.json", [rectangle("cat", 0, 0, 2, 2)])
    (folder / "coco.json").write_text('{"images": [], "annotations": []}')
    (folder / "broken.json").write_text('{"shapes": [')
    for name in ("b.heic", "c.HEIC", "notes.md", ".hidden", "Thumbs.db"):
        (folder / name).touch()
    save_image(folder / "unlabelled.png")
    convert(tmp_path, "--source=labelme", f"--input={folder}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "1 JSON file of other tools, e.g. coco.json: without `shapes` and `imagePath`",
        "1 image without a LabelMe file, e.g. unlabelled.png",
        "2 .heic files, e.g. b.heic: needs a plugin (pillow-heif)",
        "1 .md file, e.g. notes.md: no kind of file that is read here",
    ]
    assert lines[5] == "1 image left out:"
    assert lines[6].startswith("  broken.json: not JSON")


def test_a_folder_without_a_labelme_file_says_what_is_there(tmp_path):
    (tmp_path / "a.json").write_text('{"images": []}')
    (tmp_path / "b.xml").touch()
    with pytest.raises(
        DataError, match=r"no LabelMe file in this folder; a.json: .* `shapes`.*; 1 .xml file"
    ):
        read_labelme(tmp_path)


def test_the_size_before_exif_rotation_is_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(tmp_path / "in/a.png", exif=exif)
    write(tmp_path / "in/a.json", [rectangle("cat", 0, 0, 2, 2)])
    with pytest.raises(
        DataError, match=r"says 4x6 \(HxW\), the image is 6x4, upright by its EXIF orientation 6"
    ):
        convert(tmp_path, f"--input={tmp_path / 'in'}")


def test_the_reason_survives(folder, tmp_path):
    write(folder / "a.json", [shape("cat", [[1, 1], [2, 2]]), shape("cat", [[1, 1]], "point")])
    with pytest.raises(
        DataError,
        match=r"a.png: nothing is annotated: shape 0 \(cat\): a polygon must have 3 or more points"
        r".*\(and 1 more left out\)",
    ):
        convert(tmp_path, f"--input={folder}")
