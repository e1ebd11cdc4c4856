import argparse
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tf_panoptic_fpn.commands import convert_cityscapes as command
from tf_panoptic_fpn.convert.cityscapes import convert_cityscapes
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.datatools.validate.split import validate_split
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes import CATEGORIES, read_cityscapes, read_cityscapes_panoptic
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic

# Road, sky, two cars, a group of cars, a person; void: unlabelled, ego vehicle, a caravan.
VALUES = np.array([[7, 7, 26000, 26001], [23, 23, 26, 24000], [0, 1, 29000, 29]], np.uint16)
ROAD, SKY, PERSON, CAR = 7, 23, 24, 26


@pytest.fixture
def root(tmp_path):
    """Two cities as published, with an image each."""
    for city, values in (("ulm", VALUES[:2]), ("aachen", VALUES)):
        for folder, name, pixels in (
            ("leftImg8bit", "leftImg8bit", np.zeros((*values.shape, 3), np.uint8)),
            ("gtFine", "gtFine_instanceIds", values),
            ("gtFine", "gtFine_labelIds", np.where(values < 1000, values, values // 1000)),
        ):
            path = tmp_path / folder / "train" / city
            path.mkdir(parents=True, exist_ok=True)
            pixels = pixels if pixels.max() > 255 else pixels.astype(np.uint8)
            Image.fromarray(pixels).save(path / f"{city}_000001_000019_{name}.png")
    return tmp_path


def _read(root):
    return read_cityscapes(root / "leftImg8bit/train", root / "gtFine/train")


def _semantic(record, ids):
    categories = {0: 0, **{s.id: s.category_id for s in record.segments}}
    return np.vectorize(categories.get)(ids)


def test_the_published_maps(root):
    split = _read(root)
    assert split.has_panoptic
    assert (len(split.categories.things), len(split.categories.stuff)) == (8, 11)
    (record, image, ids), (other, _, _) = evaluation_samples(split)
    assert (record.image_id, other.image_id) == ("aachen_000001_000019", "ulm_000001_000019")
    assert record.file_name == "aachen/aachen_000001_000019_leftImg8bit.png"
    assert (record.height, record.width, other.height) == (3, 4, 2)
    assert image.shape == (3, 4, 3)
    assert [(s.category_id, s.is_crowd) for s in record.segments] == [
        (ROAD, False),
        (SKY, False),
        (CAR, True),
        (PERSON, False),
        (CAR, False),
        (CAR, False),
    ]
    assert _semantic(record, ids).tolist() == [
        [ROAD, ROAD, CAR, CAR],
        [SKY, SKY, CAR, PERSON],
        [0, 0, 0, 0],
    ]
    assert len(set(ids[ids > 0].tolist())) == 6


def test_the_index_lists_the_values_of_the_map(root):
    split = _read(root)
    every = split.categories.with_semantic_things("all")
    index = build_index(dataclasses.replace(split, categories=every))
    assert index.map_format == "grey"
    rows = slice(*index.label_offsets[:2])
    classes = dict(zip(index.label_ids[rows], index.label_classes[rows], strict=True))
    # Things take 0..7 in the order of their ids, stuff 8..18; road is the first, sky the last.
    assert classes == {
        7: 8,
        23: 18,
        26: 2,
        26000: 2,
        26001: 2,
        24000: 0,
        0: 255,
        1: 255,
        29: 255,
        29000: 255,
    }
    rows = slice(*index.instance_offsets[:2])
    assert index.instance_map_ids[rows].tolist() == [26, 24000, 26000, 26001]
    assert index.instance_is_crowd[rows].tolist() == [True, False, False, False]
    assert index.instance_classes[rows].tolist() == [2, 0, 2, 2]
    assert index.sizes.tolist() == [[3, 4], [2, 4]]
    assert index.needs_pillow.tolist() == [False, False]


def test_conversion_keeps_ids_and_reads_back(root):
    arguments = argparse.ArgumentParser()
    command.add_arguments(arguments)
    command.run(arguments.parse_args(["--root", str(root), "--splits", "train"]))
    target = root / "gtFine/cityscapes_panoptic_train"
    tree = json.loads(target.with_suffix(".json").read_text())
    assert tree["images"][0] == {
        "id": "aachen_000001_000019",
        "width": 4,
        "height": 3,
        "file_name": "aachen/aachen_000001_000019_leftImg8bit.png",
    }
    annotation = tree["annotations"][0]
    assert annotation["file_name"] == "aachen_000001_000019_gtFine_panoptic.png"
    assert annotation["segments_info"][2:4] == [
        {"id": 26, "category_id": 26, "area": 1, "bbox": [2, 1, 1, 1], "iscrowd": 1},
        {"id": 24000, "category_id": 24, "area": 1, "bbox": [3, 1, 1, 1], "iscrowd": 0},
    ]
    assert len(tree["categories"]) == 19
    raw = list(evaluation_samples(_read(root)))
    images = root / "leftImg8bit/train"
    for read in (read_coco_panoptic, read_cityscapes_panoptic):
        split = read(images, target.with_suffix(".json"), target)
        assert split.categories == CATEGORIES
        for (record, _, ids), (expected, _, raw_ids) in zip(
            evaluation_samples(split), raw, strict=True
        ):
            assert ids.tolist() == np.maximum(raw_ids - 1, 0).tolist()
            assert _semantic(record, ids).tolist() == _semantic(expected, raw_ids).tolist()
            assert record.file_name == expected.file_name
    with pytest.raises(DataError, match=r"cityscapes_panoptic_train.json: exists already"):
        convert_cityscapes(images, root / "gtFine/train", target.with_suffix(".json"), target)


def run_command(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(arguments))


def test_a_folder_of_one_split_and_a_second_run(root, capsys):
    run_command("--root", str(root))
    written = root / "gtFine/cityscapes_panoptic_train.json"
    assert capsys.readouterr().out.splitlines() == [
        f"val: left out, there is no {root}/leftImg8bit/val",
        str(written),
    ]
    before = written.read_bytes()
    run_command("--root", str(root), "--splits", "train")
    assert capsys.readouterr().out == f"{written}: exists already, left as it is\n"
    assert written.read_bytes() == before
    # What is asked for by name must be there, and nothing is done before that is known.
    written.unlink()
    with pytest.raises(DataError, match=r"leftImg8bit/val: no such folder"):
        run_command("--root", str(root), "--splits", "train", "val")
    assert not written.exists()
    with pytest.raises(DataError, match=r"leftImg8bit/train: no such folder"):
        run_command("--root", str(root / "none"))


def test_messages_have_the_ids_of_the_file(root):
    findings = validate_split(lambda: _read(root)).findings
    shown = [example.split(": ", 1)[1] for example in findings.examples["tiny"]]
    assert shown == ["segment 7 (road): 2", "segment 23 (sky): 2", "segment 26 (car): 1"]


def test_files_of_cityscapesscripts(root):
    """There an image is `CITY_..._gtFine_leftImg8bit.png` in the JSON, a name of no file."""
    target = root / "panoptic"
    convert_cityscapes(root / "leftImg8bit/train", root / "gtFine/train", f"{target}.json", target)
    tree = json.loads(target.with_suffix(".json").read_text())
    for image in tree["images"]:
        image["file_name"] = f"{image['id']}_gtFine_leftImg8bit.png"
    target.with_suffix(".json").write_text(json.dumps(tree))
    split = read_cityscapes_panoptic(root / "leftImg8bit/train", f"{target}.json", target)
    assert len(list(evaluation_samples(split))) == 2


def test_missing_files(root):
    path = root / "gtFine/train/ulm/ulm_000001_000019_gtFine_instanceIds.png"
    path.rename(path.with_suffix(".bak"))
    with pytest.raises(DataError, match=r"instanceIds.png: the instance map file is missing \(1"):
        _read(root)
    path.with_suffix(".bak").rename(path)
    (root / "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match=r"leftImg8bit.png: the image file is missing \(1 of the 2"):
        _read(root)
    with pytest.raises(DataError, match=r"the folder has no images CITY"):
        read_cityscapes(root / "none", root / "none")


def test_a_bad_map_is_an_error_or_is_left_out(root):
    path = root / "gtFine/train/ulm/ulm_000001_000019_gtFine_instanceIds.png"
    Image.fromarray(np.full((2, 4), 40, np.uint8)).save(path)
    with pytest.raises(DataError, match=r"ulm.*: the map holds unknown labels: 40"):
        build_index(_read(root))
    Image.new("RGB", (4, 2)).save(path)
    with pytest.raises(DataError, match=r"ulm.*must be a PNG, grey .* Received: PNG, mode RGB"):
        list(evaluation_samples(_read(root)))
