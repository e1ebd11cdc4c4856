"""What a training starts from: found, compared and carried over by the names of classes."""

import dataclasses

import numpy as np
import pytest
from conftest import restore, snapshot
from float64 import float64
from foreign_checkpoints import to_mmdet, to_torchvision
from keras import ops
from small_model import make_small_model, make_tiny_model

from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import TrainConfig
from tf_panoptic_fpn.known_categories import coco_categories
from tf_panoptic_fpn.weights import (
    WeightsError,
    load_detectron2,
    load_initial_weights,
    zoo,
)
from tf_panoptic_fpn.weights import initial_weights as module
from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays
from tf_panoptic_fpn.weights.initial_weights import read_initial_weights, set_initial_weights
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO

PREDICTORS = {
    "roi_heads.box_predictor.cls_score": 1,
    "roi_heads.box_predictor.bbox_pred": 4,
    "roi_heads.mask_head.predictor": 1,
    "sem_seg_head.predictor": 1,
}
THINGS, STUFF = ("ant", "bee", "cat", "dog", "eel"), ("sky", "road", "tree", "wall")


def table(things, stuff):
    names = [*((name, True) for name in things), *((name, False) for name in stuff)]
    return CategoryTable(
        tuple(Category(i, name, thing) for i, (name, thing) in enumerate(names, start=1))
    )


TRAINED = table(THINGS, STUFF)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, golden):
    """detectron2's small model as a file, with a list of its classes beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    np.savez(folder / "model.npz", **golden)
    TRAINED.save(folder / "categories.json")
    return folder / "model.npz"


def settings(path, **changes):
    return TrainConfig(initial_weights=str(path), **changes)


def outputs(model):
    image = np.random.default_rng(0).uniform(0, 255, (1, 96, 128, 3)).astype(np.float32)
    return {name: ops.convert_to_numpy(value)[0] for name, value in model(image).items()}


@pytest.fixture
def model_64(golden):
    """The small model in float64, with detectron2's weights."""
    with float64():
        model = make_small_model()
        load_detectron2(model, golden)
        yield model


def test_permuted_classes_give_permuted_outputs(model_64, checkpoint):
    """In float64, where only the order of sums over the classes tells them apart."""
    before = outputs(model_64)
    things, stuff = (3, 0, 4, 2, 1), (2, 3, 0, 1)
    own = table([THINGS[k] for k in things], [STUFF[s] for s in stuff])
    load_initial_weights(model_64, settings(checkpoint, match_classes="by_name"), own)
    after = outputs(model_64)
    count = before["num_detections"]
    assert count == after["num_detections"] > 5
    np.testing.assert_array_equal(
        np.array(things)[after["classes"][:count]], before["classes"][:count]
    )
    for name in ("boxes", "scores", "mask_probs"):
        assert after[name].dtype == np.float64
        np.testing.assert_allclose(after[name], before[name], rtol=1e-12, atol=1e-12, err_msg=name)
    rows = [0, *(1 + s for s in stuff)]
    np.testing.assert_allclose(
        after["semantic_logits"], before["semantic_logits"][..., rows], rtol=1e-12, atol=1e-12
    )


def test_a_copy_of_all_classes_is_exact(model, checkpoint, expected):
    load_initial_weights(model, settings(checkpoint, match_classes="by_name"), TRAINED)
    for path, value in snapshot(model).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.fixture(scope="module")
def other_built():
    """A model of 3 things and 3 stuff, and its first weights; it strides in the 3x3."""
    backbone = ResNet(50, stem_channels=8, width=4, stride_in_1x1=False, name="backbone")
    model = make_small_model(num_thing_classes=3, num_stuff_classes=3, backbone=backbone)
    return model, snapshot(model)


@pytest.fixture
def other(other_built):
    model, first = other_built
    restore(model, first)
    return model


def assert_rows(model, given, things, semantic, fresh):
    """The rows of the predictors: dicts of own row -> the checkpoint's, the rest being fresh."""
    arrays = detectron2_arrays(model)
    for layer, size in PREDICTORS.items():
        rows = semantic if layer.startswith("sem_seg") else things
        if layer.endswith("cls_score"):
            rows = {**rows, 3: -1}  # the background
        for name in (f"{layer}.weight", f"{layer}.bias"):
            own, theirs, first = (
                a[name].reshape(-1, size, *a[name].shape[1:]) for a in (arrays, given, fresh)
            )
            for row in range(len(own)):
                origin = theirs[rows[row]] if row in rows else first[row]
                np.testing.assert_array_equal(own[row], origin, err_msg=f"{name} {row}")


def test_a_part_of_the_classes_with_new_ones(other, checkpoint, golden, capsys):
    fresh = detectron2_arrays(other)
    own = table(["dog", "unicorn", "Bee"], ["wall", "grass", "sky"])
    load_initial_weights(other, settings(checkpoint, match_classes="by_name"), own)
    assert_rows(other, golden, {0: 3, 2: 1}, {0: 0, 1: 4, 3: 1}, fresh)
    arrays = detectron2_arrays(other)
    name = "roi_heads.box_head.fc1.weight"
    np.testing.assert_array_equal(arrays[name], golden[name])
    log = capsys.readouterr().out
    assert "Carried over by name: things dog, Bee (<- bee); stuff wall, sky." in log
    assert "Start fresh: things unicorn; stuff grass." in log


def test_no_classes(other, checkpoint, golden):
    fresh = detectron2_arrays(other)
    load_initial_weights(other, settings(checkpoint, match_classes="none"))
    arrays = detectron2_arrays(other)
    for name, value in arrays.items():
        if name.startswith(tuple(PREDICTORS)):
            np.testing.assert_array_equal(value, fresh[name], err_msg=name)
    np.testing.assert_array_equal(
        arrays["roi_heads.mask_head.deconv.weight"], golden["roi_heads.mask_head.deconv.weight"]
    )


def coco_arrays(golden, things):
    """The small model with as many classes as COCO's, in detectron2's names."""
    rng = np.random.default_rng(5)
    arrays = dict(golden)
    for layer, size in PREDICTORS.items():
        rows = 54 if layer.startswith("sem_seg") else size * things
        rows += layer.endswith("cls_score")
        for name in (f"{layer}.weight", f"{layer}.bias"):
            arrays[name] = rng.normal(size=(rows, *golden[name].shape[1:])).astype(np.float32)
    return arrays


@pytest.mark.parametrize("source", ["detectron2", "mmdet", "torchvision"])
def test_a_coco_checkpoint_of_each_framework(other, golden, source, tmp_path, capsys):
    things = 90 if source == "torchvision" else 80
    arrays = coco_arrays(golden, things)
    write = {"detectron2": dict, "mmdet": to_mmdet, "torchvision": to_torchvision}[source]
    np.savez(tmp_path / "coco.npz", **write(arrays))
    fresh = detectron2_arrays(other)
    own = table(["people", "scooter", "Traffic_Light"], ["tree", "my floor", "Wall"])
    changes = {"match_classes": "by_name", "class_synonyms": {"people": "person"}}
    load_initial_weights(other, settings(tmp_path / "coco.npz", **changes), own)
    stuff = [category.name for category in coco_categories().stuff]
    tree, wall = (1 + stuff.index(name) for name in ("tree-merged", "wall-other-merged"))
    semantic = {0: 0, 1: tree, 3: wall} if source != "torchvision" else {}
    # torchvision numbers by COCO's id, 10 being a traffic light as the 10th of 80.
    assert_rows(other, arrays, {0: 0, 2: 9}, semantic, fresh)
    log = capsys.readouterr().out
    assert "As many classes as COCO" in log
    assert "Start fresh: things scooter" in log


def test_a_published_model(golden, tmp_path, monkeypatch):
    np.savez(tmp_path / "published.npz", **coco_arrays(golden, 80))
    monkeypatch.setattr(zoo, "download", lambda url, folder: tmp_path / "published.npz")
    given = settings(next(iter(MODEL_ZOO)), match_classes="by_name")
    initial = read_initial_weights(given, config_of(3, 3))
    assert initial.known is None  # taken by their number
    assert len(initial.source.arrays["sem_seg_head.predictor.bias"]) == 54
    assert "licence CC BY-SA 3.0" in initial.source.notes[-1]


def test_a_run_and_its_file(tmp_path, monkeypatch):
    model = make_tiny_model(num_thing_classes=3, num_stuff_classes=3)
    own, before = table(["a", "b", "c"], ["x", "y", "z"]), snapshot(model)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    own.save(run / "categories.json")
    model.save(run / "model.keras")
    # What is told by the contents is not asked of the configuration.
    given = settings(run, initial_weights_source="mmdet")
    initial = read_initial_weights(given, model.config)
    assert initial.known == own
    restore(model, {key: value + 1 for key, value in before.items()})
    set_initial_weights(model, initial, own)
    for key, value in snapshot(model).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    renamed = table(["a", "b", "d"], ["x", "y", "z"])
    with pytest.raises(WeightsError, match=r"'c' of its things is 'd' in the data; .*by_name"):
        set_initial_weights(model, initial, renamed)

    monkeypatch.setattr(module, "open_source", lambda path, source: (path, source))
    for path in (run, run / "model.keras"):
        opened = module._open(str(path), "mmdet")
        assert opened == ((run / "model.keras", None), run / "categories.json")
    (run / "best.keras").touch()
    assert module._open(str(run), "infer")[0][0] == run / "best.keras"
    (run / "model.keras").unlink()
    with pytest.raises(WeightsError, match=r"model\.keras: .*no finished run"):
        read_initial_weights(given, model.config)


def config_of(things, stuff, tasks=("instance", "semantic"), semantic_things="other"):
    return {
        "num_thing_classes": things,
        "num_stuff_classes": stuff,
        "tasks": tasks,
        "semantic_things": semantic_things,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_of(3, 4), "has 5 thing classes, and the model 3; .*by_name"),
        (config_of(5, 8), "has 5 semantic classes, and the model 9; .*by_name"),
        (config_of(5, 4, semantic_things="all"), "has 5 semantic classes, and the model 9"),
        (config_of(5, 4, ("instance",)), "semantic branch: the model has none; .*by_name"),
    ],
)
def test_other_classes_are_one_line_before_the_data(checkpoint, config, message):
    with pytest.raises(WeightsError, match=message) as raised:
        read_initial_weights(settings(checkpoint), config)
    assert "\n" not in str(raised.value)
    assert read_initial_weights(settings(checkpoint, match_classes="by_name"), config)


def test_a_detector_without_a_semantic_branch(checkpoint, golden, tmp_path):
    arrays = {name: value for name, value in golden.items() if not name.startswith("sem_seg")}
    np.savez(tmp_path / "mask_rcnn.npz", **arrays)
    with pytest.raises(WeightsError, match="semantic branch: it has none and the model one"):
        read_initial_weights(settings(tmp_path / "mask_rcnn.npz"), config_of(5, 4))
    (tmp_path / "backbone").mkdir()
    arrays = {name: value for name, value in golden.items() if "bottom_up" in name}
    np.savez(tmp_path / "backbone/R.npz", **arrays)
    assert read_initial_weights(settings(tmp_path / "backbone/R.npz"), config_of(7, 1))


def test_paths_that_stand_for_nothing(tmp_path):
    config = config_of(5, 4)
    assert read_initial_weights(TrainConfig(), config) is None
    for name, message in (
        (tmp_path / "none.pth", r"none\.pth: no such file"),
        (tmp_path, "Received: a folder without config.yaml"),
        (tmp_path / "detectron2/panoptic_fpn_R_50", r"did you mean .* detectron2/panoptic_fpn_R_5"),
    ):
        with pytest.raises(WeightsError, match=message):
            read_initial_weights(settings(name), config)
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"text\.pth"):
        read_initial_weights(settings(tmp_path / "text.pth"), config)


def test_categories_that_are_given(model, checkpoint, golden, tmp_path):
    path = tmp_path / "alone.npz"
    path.write_bytes(checkpoint.read_bytes())
    own = TRAINED
    with pytest.raises(WeightsError, match=r"brings no categories .*`train\.initial_categories`"):
        load_initial_weights(model, settings(path, match_classes="by_name"), own)
    listed = tmp_path / "listed.json"
    given = settings(path, match_classes="by_name", initial_categories=str(listed))
    table(THINGS[:3], STUFF).save(listed)
    with pytest.raises(WeightsError, match="3 things and 4 stuff are not the classes of"):
        load_initial_weights(model, given, own)
    dataclasses.replace(TRAINED, categories=TRAINED.categories[::-1]).save(listed)
    load_initial_weights(model, given, own)
    name = "roi_heads.mask_head.predictor.weight"
    np.testing.assert_array_equal(detectron2_arrays(model)[name], golden[name])
