"""From LabelMe files and a COCO checkpoint to a training that starts from its classes."""

import json
import pathlib

import keras
import numpy as np
import pytest
import yaml
from command_line import TINY
from convert_command import command
from PIL import Image

from tf_panoptic_fpn import build_model, load_config, load_model
from tf_panoptic_fpn.commands import convert_data
from tf_panoptic_fpn.training.loop import train
from tf_panoptic_fpn.weights import WeightsError
from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays

COCO = ["model.num_thing_classes=80", "model.num_stuff_classes=53"]


def write_labelme(folder):
    """Four pictures with a car, a scooter and the sky."""
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        boxes = {"sky": (0, 0, 96, 20), "Car": (10, 25, 40, 60), "scooter": (50, 25, 90, 60)}
        shapes = [
            {"label": label, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}
            for label, (x1, y1, x2, y2) in boxes.items()
        ]
        tree = {"imagePath": f"{number}.png", "imageData": None, "shapes": shapes}
        tree |= {"imageHeight": 64, "imageWidth": 96}
        (folder / f"{number}.json").write_text(json.dumps(tree))


@pytest.fixture
def mydata(tmp_path):
    """The data set that `convert-data --recipe` makes, of a recipe of the tests' size."""
    recipe = yaml.safe_load(pathlib.Path(TINY).read_text(encoding="utf-8"))
    recipe["train"] |= {"initial_weights": str(tmp_path / "coco.npz"), "match_classes": "by_name"}
    recipe["train"] |= {"deterministic": False, "steps": 1}
    recipe["optimizer"] = {"learning_rate": 1e-12, "weight_decay": 0.0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_labelme(tmp_path / "labels")
    arguments = [f"--input={tmp_path / 'labels'}", f"--output={tmp_path / 'mydata'}"]
    arguments += ["--stuff=sky", "--validation-share=0.25", f"--recipe={tmp_path / 'recipe.yaml'}"]
    command(convert_data, *arguments)
    return tmp_path / "mydata"


@pytest.mark.slow
def test_labelme_files_and_a_coco_checkpoint(mydata, tmp_path, capsys):
    keras.utils.set_random_seed(3)
    coco = detectron2_arrays(build_model(load_config(TINY, COCO).model))
    np.savez(tmp_path / "coco.npz", **coco)
    config = load_config(mydata / "config.yaml")
    assert (config.model.num_thing_classes, config.model.num_stuff_classes) == (2, 1)
    train(config, tmp_path / "run")
    log = capsys.readouterr().out
    assert "As many classes as COCO, whose names are taken." in log
    assert "Carried over by name: things Car (<- car); stuff sky (<- sky-other-merged)." in log
    assert "Start fresh: things scooter." in log
    arrays = detectron2_arrays(load_model(tmp_path / "run" / "model.keras"))
    name = "roi_heads.box_predictor.cls_score.weight"
    np.testing.assert_allclose(arrays[name][0], coco[name][2], atol=1e-6)  # a car
    np.testing.assert_allclose(arrays[name][2], coco[name][80], atol=1e-6)  # the background
    assert np.abs(arrays[name][1] - coco[name]).max(axis=1).min() > 1e-3
    # A run that goes on does not look at the checkpoint again.
    (tmp_path / "coco.npz").unlink()
    train(config, tmp_path / "run")


def test_a_checkpoint_that_is_not_there_is_said_before_the_data(mydata, tmp_path):
    config = load_config(mydata / "config.yaml")
    (mydata / "panoptic_train.json").unlink()
    with pytest.raises(WeightsError, match=r"coco\.npz: no such file"):
        train(config, tmp_path / "run")
