"""What is found at a path, and the categories that a model without a list gets."""

import json
import types
import zipfile

import numpy as np
import pytest

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.inference import load_predictor as module
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.inference.model_source import (
    CHECKPOINT,
    EXPORTED,
    KERAS,
    PUBLISHED,
    RUN,
    find_model,
)
from tf_panoptic_fpn.known_categories import (
    categories_of_model,
    cityscapes_categories,
    coco_categories,
)
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO

TABLE = CategoryTable((Category(0, "cat", True), Category(3_000_000_000, "sky", False)))


def write_run(folder):
    folder.mkdir()
    (folder / "config.yaml").write_text("merge: {stuff_area: 7}\n", encoding="utf-8")
    (folder / "model.keras").touch()
    TABLE.save(folder / "categories.json")
    return folder


def test_the_folder_of_a_run(tmp_path):
    source = find_model(write_run(tmp_path / "run"), overrides=["merge.score_threshold=0.25"])
    assert (source.kind, source.path) == (RUN, tmp_path / "run" / "model.keras")
    assert source.known_categories() == TABLE
    config = source.load_config()
    assert (config.merge.stuff_area, config.merge.score_threshold) == (7, 0.25)
    assert source.has_data
    (tmp_path / "run" / "model.keras").unlink()
    with pytest.raises(ConfigError, match=r"model\.keras: .* holds no finished run"):
        find_model(tmp_path / "run")


def test_a_saved_model_and_the_highest_of_its_versions(tmp_path):
    for version in ("9", "10", "notes"):
        (tmp_path / "served" / version / "assets").mkdir(parents=True)
        (tmp_path / "served" / version / "saved_model.pb").touch()
        TABLE.save(tmp_path / "served" / version / "assets" / "categories.json")
    source = find_model(tmp_path / "served")
    assert (source.kind, source.path) == (EXPORTED, tmp_path / "served" / "10")
    assert find_model(tmp_path / "served" / "9").path.name == "9"
    assert source.known_categories() == TABLE
    assert not source.has_data


def test_files_are_told_by_their_contents(tmp_path, monkeypatch):
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    with zipfile.ZipFile(tmp_path / "renamed.zip", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert find_model(tmp_path / "weights.npz").kind == CHECKPOINT
    assert find_model(tmp_path / "renamed.zip").kind == KERAS
    monkeypatch.setenv("MODELS", str(tmp_path))
    assert find_model("$MODELS/renamed.zip").path == tmp_path / "renamed.zip"


def test_published_names_and_what_is_nowhere(tmp_path):
    name = next(iter(MODEL_ZOO))
    assert find_model(name).kind == PUBLISHED
    assert find_model(name).fingerprint() != find_model([*MODEL_ZOO][1]).fingerprint()
    with pytest.raises(ConfigError, match=f"no published model. Published: {name}"):
        find_model(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"holds no model: neither config\.yaml"):
        find_model(tmp_path)


def test_categories_of_a_file_go_first(tmp_path):
    TABLE.save(tmp_path / "own.json")
    other = CategoryTable(TABLE.categories[:1])
    source = find_model(write_run(tmp_path / "run"), categories=tmp_path / "own.json")
    other.save(tmp_path / "run" / "categories.json")
    assert source.known_categories() == TABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", r"own\.json: not JSON"),
        ("{}", r"own\.json: must hold a list of categories"),
        ('[{"id": 1}]', r"own\.json: a category needs `id` and `name`"),
        (None, r"own\.json: cannot be read: No such file"),
    ],
)
def test_categories_that_cannot_be_read(tmp_path, text, message):
    if text is not None:
        (tmp_path / "own.json").write_text(text, encoding="utf-8")
    source = find_model(write_run(tmp_path / "run"), categories=tmp_path / "own.json")
    with pytest.raises(DataError, match=message):
        source.known_categories()


def test_categories_of_a_coco_file(tmp_path):
    document = json.dumps({"images": [], "categories": TABLE.to_coco()})
    (tmp_path / "coco.json").write_text(f"\ufeff{document}", encoding="utf-8")
    source = find_model(write_run(tmp_path / "run"), categories=tmp_path / "coco.json")
    assert source.known_categories() == TABLE


def test_cocos_categories(samples):
    table = coco_categories()
    assert (len(table.things), len(table.stuff)) == (80, 53)
    file = samples / "coco_panoptic_2" / "panoptic.json"
    listed = json.loads(file.read_text(encoding="utf-8"))["categories"]
    assert table.by_id == CategoryTable.from_coco(listed).by_id


def test_cityscapes_categories():
    table = cityscapes_categories()
    assert (len(table.things), len(table.stuff)) == (8, 11)
    assert table.by_id[7] == Category(7, "road", False, (128, 64, 128))
    assert table.by_id[33] == Category(33, "bicycle", True, (119, 11, 32))


def fake_model(things, stuff, tasks=("instance", "semantic"), semantic_things="other"):
    config = {
        "num_thing_classes": things,
        "num_stuff_classes": stuff,
        "tasks": tasks,
        "semantic_things": semantic_things,
    }
    return types.SimpleNamespace(config=config)


@pytest.mark.parametrize(
    ("model", "title", "counts"),
    [
        (fake_model(80, 53), "COCO", (80, 53)),
        (fake_model(8, 11), "Cityscapes", (8, 11)),
        (fake_model(80, 53, ("instance",)), "COCO", (80, 0)),
        (fake_model(80, 53, ("semantic",)), "COCO", (0, 53)),
        (fake_model(8, 11, ("semantic",), "all"), "Cityscapes", (8, 11)),
        (fake_model(90, 53, ("instance",)), "COCO's instances", (90, 0)),
    ],
)
def test_known_data_sets_by_their_classes(model, title, counts, capsys):
    table = categories_of_model(model.config, "m")
    assert (len(table.things), len(table.stuff)) == counts
    assert capsys.readouterr().err == f"m: as many classes as {title}, whose categories are taken\n"
    if counts[0] == 90:  # torchvision's class k has COCO's id k + 1
        assert table.things[0].name == "person"
        assert (table.things[89].id, table.things[89].name) == (90, "toothbrush")


def test_classes_of_no_known_data_set():
    with pytest.raises(ConfigError, match=r"give them \(--categories\)\. Received: 3 thing"):
        categories_of_model(fake_model(3, 2).config, "m")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.max_detections=5"], r"`model\.max_detections` must be 100, as in .*Received: 5"),
        (["model.num_thing_classes=5"], r"`model\.num_thing_classes` must be 1, as in"),
    ],
)
def test_a_trained_model_is_not_set_by_hand(tmp_path, monkeypatch, overrides, message):
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    model = fake_model(1, 1)
    model.config["max_detections"] = load_config("/dev/null").model.max_detections
    monkeypatch.setattr(module, "load_source", lambda source: model)
    with pytest.raises(ConfigError, match=message):
        load_predictor(tmp_path / "weights.npz", overrides=overrides)


def test_categories_of_another_number(tmp_path, monkeypatch):
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    TABLE.save(tmp_path / "categories.json")
    monkeypatch.setattr(module, "load_source", lambda source: fake_model(1, 2))
    with pytest.raises(ConfigError, match=r"must hold 2 stuff classes, as the model\. .* 1"):
        load_predictor(tmp_path / "weights.npz", categories=tmp_path / "categories.json")
