"""What is looked at before the first step."""

import json

import pytest
from command_line import TINY

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.data.splits import resolve_data
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.training import loop
from tf_panoptic_fpn.training.before_training import load_checked_index

pytestmark = pytest.mark.usefixtures("short_backbones")


@pytest.fixture
def config(tmp_path):
    return resolve_data(load_config(TINY), tmp_path)


def spoil(config, change):
    """Rewrites the JSON of the validation split."""
    root = config.data.root
    path = f"{root}/{config.data.validation.panoptic_json}"
    with open(path, encoding="utf-8") as file:
        tree = json.load(file)
    change(tree)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(tree, file)


def test_the_index_is_that_of_the_training_split(config):
    assert len(load_checked_index(config)) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [("keras_applications/VGG61", "VGG19 or VGG16"), ("keras_hub/dinov2_smal", "dinov2_small")],
)
def test_a_backbone_that_cannot_be_made_is_told_before_the_data_is_read(
    tmp_path, monkeypatch, name, message
):
    if name.startswith("keras_hub"):
        pytest.importorskip("keras_hub", reason="pip install .[keras_hub]")
    monkeypatch.setattr(loop, "load_checked_index", lambda config: pytest.fail("the data is read"))
    config = load_config(TINY, [f"model.backbone={name}", "model.norm=frozen_affine"])
    with pytest.raises(ConfigError, match=message):
        loop.train(config, tmp_path)


def test_a_missing_file_of_the_validation_split(config):
    validation = config.data.validation.model_copy(update={"panoptic_json": "nope.json"})
    data = config.data.model_copy(update={"validation": validation})
    with pytest.raises(DataError, match=r"nope\.json: cannot be read"):
        load_checked_index(config.model_copy(update={"data": data}))


def test_a_bad_annotation_of_the_validation_split(config):
    def change(tree):
        tree["annotations"][-1]["segments_info"][0]["category_id"] = 99

    spoil(config, change)
    with pytest.raises(DataError, match="99"):
        load_checked_index(config)


def test_validation_of_other_categories(config):
    def change(tree):
        renumbered = {c["id"]: c["id"] + 1000 for c in tree["categories"]}
        for category in tree["categories"]:
            category["id"] = renumbered[category["id"]]
        for annotation in tree["annotations"]:
            for segment in annotation["segments_info"]:
                segment["category_id"] = renumbered[segment["category_id"]]

    spoil(config, change)
    with pytest.raises(ConfigError, match=r"`data\.validation` must have the thing_ids"):
        load_checked_index(config)


def test_validation_without_ground_truth(config):
    def change(tree):
        for annotation in tree["annotations"]:
            annotation["segments_info"] = []

    spoil(config, change)
    with pytest.raises(DataError, match="the annotation has no segments"):
        load_checked_index(config)
