"""Folders in the layouts of YOLO and Roboflow, and those that datumaro reads."""

import json

import numpy as np
import pytest
from convert_command import command, convert, drawn, loaded
from PIL import Image

from tf_panoptic_fpn.commands import convert_data
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.convert.yolo import read_yolo_labels
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError
from tf_panoptic_fpn.folders import unread_kinds
from tf_panoptic_fpn.messages import plural


def save_image(path, size=(4, 8)):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size[::-1]).save(path)


def write(path, text):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8")


# Of 4x8 pixels: columns 2 and 3 of rows 1 and 2.
SQUARE = "0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75"
DRAWN = ["........", "..cc....", "..cc....", "........"]
YAML = "train: {}\nval: {}\nnames: [cat, dog]\n"


def yolo_folder(root, images, labels, train, val):
    for split, name in (("train", "a"), ("val", "b")):
        save_image(root / images.format(split) / f"{name}.jpg")
        write(root / labels.format(split) / f"{name}.txt", f"0 {SQUARE}\n")
    write(root / "data.yaml", YAML.format(train, val))


@pytest.mark.parametrize(
    ("images", "labels", "train", "val"),
    [
        ("images/{}", "labels/{}", "images/train", "images/val"),
        ("{}/images", "{}/labels", "../train/images", "../val/images"),  # as Roboflow writes it
        ("{}/images", "{}/labels", ".\\train\\images", "val/images"),
    ],
)
def test_yolo_layouts_are_recognised(tmp_path, capsys, images, labels, train, val):
    root = tmp_path / "set"
    yolo_folder(root, images, labels, train, val)
    out = tmp_path / "out"
    command(convert_data, f"--input={root}", f"--output={out}")
    assert capsys.readouterr().out.startswith(f"{root}: --source=yolo\n")
    for json_name, stem in (("panoptic_train.json", "a"), ("panoptic_validation.json", "b")):
        found, categories = loaded(out, json_name)
        ((name, image),) = found.items()
        assert name.endswith(f"{stem}.jpg")
        assert drawn(image, categories) == DRAWN
        assert [(c.id, c.name, c.is_thing) for c in categories.categories] == [
            (1, "cat", True),
            (2, "dog", True),
        ]
    data = load_config(out / "config.yaml").data
    assert data.train.panoptic_json == "panoptic_train.json"
    assert data.validation.panoptic_json == "panoptic_validation.json"
    with pytest.raises(ConfigError, match=r"splits of its own"):
        command(
            convert_data, f"--input={root}", f"--output={tmp_path / 'x'}", "--validation-share=0.5"
        )


def test_a_yolo_folder_of_label_studio(tmp_path):
    """`classes.txt` and no splits; names that are text files are read with their mark."""
    root = tmp_path / "set"
    save_image(root / "images/a.jpg")
    write(root / "labels/a.txt", f"1 {SQUARE}\n")
    write(root / "classes.txt", "\ufeffdog\ncat\n")
    write(root / "notes.json", "{}")
    images, categories = convert(tmp_path, f"--input={root}")
    assert drawn(images["a.jpg"], categories) == DRAWN


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0 0.5 0.5 0.2 0.2", "line 2: a box (class x y width height), no outline"),
        ("7 " + SQUARE, "line 2: unknown class 7"),
        ("0 100 100 200 100 200 300", "line 2: x and y must be shares of the image, 0 to 1. "),
        ("0 nan 0 1 0 1 1", "line 2: x and y must be shares"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line 2: a line must be a class and 3 or more x y"),
        ("cat " + SQUARE, "line 2: a line must be numbers. Received: 'cat 0.25"),
        ("0.5 " + SQUARE, "line 2: the class must be an int. Received: '0.5'"),
    ],
)
def test_lines_that_are_no_outline_are_left_out(tmp_path, line, fault):
    root = tmp_path / "set"
    save_image(root / "images/a.jpg")
    write(root / "labels/a.txt", f"0 {SQUARE}\n{line}\n\n")
    write(root / "data.yaml", "train: images\nnames: {0: cat}\n")
    convert(tmp_path, f"--input={root}")
    (reasons,) = json.loads((tmp_path / "out/conversion.json").read_text())[
        "annotations_left_out"
    ].values()
    assert [reason[: len(fault)] for reason in reasons] == [fault]


def test_boxes_alone_say_so(tmp_path):
    root = tmp_path / "set"
    save_image(root / "images/a.jpg")
    write(root / "labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    write(root / "data.yaml", "train: images\nnames: {0: cat}\n")
    with pytest.raises(DataError, match=r"a.jpg: nothing is annotated: line 1: a box .*no outline"):
        convert(tmp_path, f"--input={root}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train: gone\nnames: [cat]", "data.yaml: train: no such file or folder: gone"),
        ("train: images\nnames: 3", "`names` must list the classes. Received: 3"),
        ("train: images\nnames: [cat]\nval: empty", "val: no such file or folder: empty"),
    ],
)
def test_a_bad_data_yaml(tmp_path, text, fault):
    save_image(tmp_path / "images/a.jpg")
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=fault):
        convert(tmp_path, f"--input={tmp_path}", "--source=yolo")


def test_yolo_numbers_are_shares(tmp_path):
    write(tmp_path / "a.txt", "3 0 0 1 0 1 0.5 0 0.5")
    assert read_yolo_labels(tmp_path / "a.txt", (10, 20)) == (
        [(1, 3, [0, 0, 20, 0, 20, 5, 0, 5])],
        [],
    )
    assert read_yolo_labels(tmp_path / "none.txt", (10, 20)) == ([], [])


def roboflow_json(path, names, outline=(2, 1, 4, 1, 4, 3, 2, 3), group="pets"):
    """Category 0 is the project, as Roboflow writes it."""
    categories = [{"id": 0, "name": group, "supercategory": "none"}] + [
        {"id": i, "name": name, "supercategory": group} for i, name in enumerate(names, 1)
    ]
    annotation = {"id": 0, "image_id": 0, "category_id": 1, "segmentation": [list(outline)]}
    tree = {
        "images": [{"id": 0, "file_name": "x.jpg", "height": 4, "width": 8}],
        "annotations": [annotation],
        "categories": categories,
    }
    save_image(path.parent / "x.jpg")
    write(path, json.dumps(tree))


def test_roboflow_folders_are_recognised(tmp_path, capsys):
    root, out = tmp_path / "set", tmp_path / "out"
    for split in ("train", "valid", "test"):
        roboflow_json(root / split / "_annotations.coco.json", ["cat", "dog"])
    write(root / "README.roboflow.txt", "")
    command(convert_data, f"--input={root}", f"--output={out}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{root}: --source=roboflow",
        "category 0 (pets): the name of the others' group, no class",
        "3 images, 3 segments, 2 thing and 0 stuff categories",
    ]
    for name, split in (("train", "train"), ("validation", "valid"), ("test", "test")):
        images, categories = loaded(out, f"panoptic_{name}.json")
        assert list(images) == [f"{split}/x.jpg"]
        assert drawn(images[f"{split}/x.jpg"], categories) == DRAWN
        assert [c.name for c in categories.categories] == ["cat", "dog"]
    data = load_config(out / "config.yaml").data
    assert data.validation.panoptic_json == "panoptic_validation.json"


def test_roboflow_splits_must_agree(tmp_path):
    roboflow_json(tmp_path / "train/_annotations.coco.json", ["cat", "dog"])
    roboflow_json(tmp_path / "valid/_annotations.coco.json", ["dog", "cat"])
    with pytest.raises(DataError, match=r"valid/_anno.*: the categories are not those of .*train"):
        convert(tmp_path, f"--input={tmp_path}")


def test_roboflow_of_one_split_takes_a_share(tmp_path):
    root = tmp_path / "set"
    roboflow_json(root / "train/_annotations.coco.json", ["cat"], group="cat")
    images, categories = convert(tmp_path, f"--input={root}")
    assert drawn(images["train/x.jpg"], categories) == DRAWN


def test_what_is_not_recognised(tmp_path):
    with pytest.raises(ConfigError, match="Either --input"):
        convert(tmp_path)
    with pytest.raises(ConfigError, match="--source must say what this is"):
        convert(tmp_path, f"--input={tmp_path}")
    write(tmp_path / "a.json", "{}")
    with pytest.raises(ConfigError, match="a COCO JSON takes --source=coco"):
        convert(tmp_path, f"--input={tmp_path}")


def test_kinds_of_files():
    assert unread_kinds(["a.jpg", "b.CR2", "c.cr2", "LICENSE"], (".jpg",)) == [
        "2 .cr2 files, e.g. b.CR2: needs a plugin (no plugin of Pillow; rawpy)",
        "1 suffixless file, e.g. LICENSE: no kind of file that is read here",
    ]
    assert [plural(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def cvat_xml(shapes):
    """An export "CVAT for images 1.1" of one image of 4x8 pixels."""
    labels = "".join(f"<label><name>{n}</name><attributes/></label>" for n in ("cat", "dog"))
    return (
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>'
        f"<id>1</id><name>t</name><size>1</size><labels>{labels}</labels></task></meta>"
        f'<image id="0" name="a.png" width="8" height="4">{shapes}</image></annotations>'
    )


def cvat_shape(tag, label, text, z_order=0, group=""):
    group = f' group_id="{group}"' if group else ""
    return f'<{tag} label="{label}" occluded="0" z_order="{z_order}"{group} {text}></{tag}>'


def cvat_polygon(label, points, **more):
    return cvat_shape("polygon", label, f'points="{points}"', **more)


def cvat_folder(root, shapes):
    save_image(root / "images/a.png")
    write(root / "annotations.xml", cvat_xml(shapes))


def test_cvat_through_datumaro(tmp_path, capsys):
    pytest.importorskip("datumaro")
    root = tmp_path / "set"
    # Row by row in its box of 3x2 at (5, 2): 1 pixel off, 2 on, 3 on.
    mask = cvat_shape("mask", "dog", 'rle="1, 5" left="5" top="2" width="3" height="2"')
    shapes = [
        cvat_polygon("cat", "2.0,1.0;4.0,1.0;4.0,3.0;2.0,3.0"),
        cvat_polygon("dog", "0.0,0.0;8.0,0.0;8.0,1.0;0.0,1.0", group="4"),
        cvat_polygon("dog", "0.0,1.0;1.0,1.0;1.0,4.0;0.0,4.0", group="4"),
        mask,
        cvat_shape("box", "cat", 'xtl="1" ytl="1" xbr="3" ybr="3"'),
        cvat_shape("ellipse", "cat", 'cx="1" cy="1" rx="3" ry="3"'),
    ]
    cvat_folder(root, "".join(shapes))
    images, categories = convert(tmp_path, f"--input={root}")
    assert drawn(images["a.png"], categories) == ["dddddddd", "d.cc....", "d.cc..dd", "d....ddd"]
    _, segments = images["a.png"]
    assert sorted(s.area for s in segments.values()) == [4, 5, 11]
    printed = capsys.readouterr().out
    assert printed.startswith(f"{root}: --source=datumaro\n1 ellipse not read by datumaro\n")
    assert "a.png: annotation 4 (cat): a bbox is no outline\n" in printed


def test_the_order_of_cvat_is_kept(tmp_path):
    pytest.importorskip("datumaro")
    small = cvat_polygon("cat", "0,0;2,0;2,2;0,2", z_order=0)
    large = cvat_polygon("dog", "0,0;4,0;4,1;0,1;0,0", z_order=1)
    large += cvat_polygon("dog", "0,0;8,0;8,4;7,4;7,1;0,1", z_order=2, group="1")
    cvat_folder(tmp_path / "set", small + large)
    images, categories = convert(tmp_path, f"--input={tmp_path / 'set'}")
    assert drawn(images["a.png"], categories) == ["dddddddd", "cc.....d", ".......d", ".......d"]


def test_datumaro_fails_with_one_line(tmp_path, monkeypatch):
    pytest.importorskip("datumaro")
    write(tmp_path / "set/annotations.xml", cvat_xml(""))
    with pytest.raises(DataError, match=r"datumaro cannot read it as cvat: .*a.png"):
        convert(tmp_path, f"--input={tmp_path / 'set'}")
    with pytest.raises(PanopticError, match=r"datumaro"):
        convert(tmp_path, f"--input={tmp_path / 'set'}", "--source=datumaro", "--format=nothing")


def test_without_datumaro(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datumaro.components.annotation", None)
    cvat_folder(tmp_path / "set", "")
    with pytest.raises(ConfigError, match=r"needs the package datumaro: pip install"):
        convert(tmp_path, f"--input={tmp_path / 'set'}")


def test_an_empty_list_of_names(tmp_path):
    root = tmp_path / "set"
    roboflow_json(root / "train/_annotations.coco.json", ["cat"])
    for text in ("", "\n \n"):
        write(tmp_path / "names.txt", text)
        with pytest.raises(ConfigError, match=r"names.txt: must name an image"):
            convert(tmp_path, f"--input={root}", f"--names={tmp_path / 'names.txt'}")
    write(tmp_path / "names.txt", "\ufeff.\\train\\x.jpg\n")
    images, _ = convert(tmp_path, f"--input={root}", f"--names={tmp_path / 'names.txt'}")
    assert np.array(list(images)).tolist() == ["train/x.jpg"]
