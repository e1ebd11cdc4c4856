"""From the paths of a configuration to the split that they name."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tf_panoptic_fpn.config import Config, DataConfig, load_config, save_config
from tf_panoptic_fpn.convert.cityscapes import convert_cityscapes
from tf_panoptic_fpn.data import splits
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    """An image of two pixels, a car (or a person) beside void, annotated in every format."""
    values = np.array([[26001, 0]])
    for path, pixels in (
        ("images/ulm/ulm_1_leftImg8bit.png", np.zeros((1, 2, 3), np.uint8)),
        ("gt/ulm/ulm_1_gtFine_instanceIds.png", values.astype(np.uint16)),
        ("maps/ulm/ulm_1_leftImg8bit.png", np.array([[0, 255]], np.uint8)),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / path)
    convert_cityscapes(
        tmp_path / "images", tmp_path / "gt", tmp_path / "panoptic.json", tmp_path / "panoptic"
    )
    image = {"id": "ulm_1", "file_name": "ulm/ulm_1_leftImg8bit.png", "height": 1, "width": 2}
    mask = {"size": [1, 2], "counts": [0, 1, 1]}
    for name, category_id in (("cars", 26), ("persons", 1)):
        annotation = {"image_id": "ulm_1", "category_id": category_id, "segmentation": mask}
        tree = {
            "images": [image],
            "annotations": [annotation],
            "categories": [{"id": category_id, "name": name}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    (tmp_path / "classes.yaml").write_text("categories: [{id: 0, name: car}]")
    return tmp_path


PANOPTIC = {"images": "images", "panoptic_json": "panoptic.json", "panoptic_dir": "panoptic"}
FORMATS = [
    ("coco_panoptic", PANOPTIC, 26, None),
    ("coco_panoptic", {**PANOPTIC, "instances_json": "cars.json"}, 26, 1),
    ("coco_instances", {"images": "images", "instances_json": "cars.json"}, 0, 1),
    (
        "coco_stuff",
        {"images": "images", "instances_json": "persons.json", "label_dir": "maps"},
        1,
        1,
    ),
    ("cityscapes", {"images": "images", "label_dir": "gt"}, 26, None),
    ("cityscapes", PANOPTIC, 26, None),
    ("label_maps", {"images": "images", "label_dir": "maps", "categories": "classes.yaml"}, 0, 0),
]


@pytest.mark.parametrize(("form", "paths", "category_id", "instances"), FORMATS)
def test_every_format(root, form, paths, category_id, instances):
    split_config = {"format": form, **paths}
    data = DataConfig(root=str(root), train=split_config, validation=split_config)
    tasks = data.train.tasks or ("instance", "semantic")
    config = Config(data=data, model={"tasks": tasks})
    assert splits.resolve_data(config, root).data == data
    split = splits.load_split(data, "validation")
    ((record, image, ids),) = evaluation_samples(split)
    assert image.shape == (1, 2, 3)
    categories = {0: 0, **{s.id: s.category_id for s in record.segments}}
    assert np.vectorize(categories.get)(ids).tolist() == [[category_id, 0]]
    assert (record.instances if instances is None else len(record.instances)) == instances
    index = splits.load_index(data, "train")
    assert len(index) == 1
    assert len(index.instance_classes) == (1 if instances is None else instances)
    assert index.categories == split.categories


@pytest.mark.parametrize(
    ("name", "paths", "images", "labels", "instances"),
    [
        ("camvid", ("images/val", "panoptic_val.json", "panoptic_val", ""), 101, 1418, 610),
        ("cocostuff_13", ("images", "panoptic.json", "panoptic", ""), 13, 139, 77),
        ("coco_panoptic_2", ("images", "panoptic.json", "panoptic", ""), 2, 50, 43),
        ("coco_panoptic_2", ("images", "panoptic.json", "panoptic", "instances.json"), 2, 50, 43),
        ("coco_instances", ("images", "", "", "instances.json"), 56, 0, 493),
        ("nuclei", ("images", "", "", "instances.json"), 40, 0, 2034),
    ],
)
def test_real_samples(samples, tmp_path, name, paths, images, labels, instances):
    form = "coco_panoptic" if paths[1] else "coco_instances"
    keys = ("images", "panoptic_json", "panoptic_dir", "instances_json")
    split = {"format": form, **dict(zip(keys, paths, strict=True))}
    data = DataConfig(root=str(samples / name), index_cache=str(tmp_path), train=split)
    index = splits.load_index(data, "train")
    assert len(index) == len(splits.load_split(data, "train").images) == images
    assert len(index.label_ids) == labels
    assert len(index.instance_classes) == instances
    assert not index.needs_pillow.any() and (index.orientations == 1).all()


@pytest.mark.parametrize(
    ("form", "paths", "fault"),
    [
        ("coco_panoptic", {}, "`data.train.images` must be given with `format: coco_panoptic`"),
        ("coco_panoptic", {"images": "a", "panoptic_json": "b"}, "`data.train.panoptic_dir` must"),
        (
            "coco_panoptic",
            {**PANOPTIC, "label_dir": "x"},
            "`data.train.label_dir` is not read with `format: coco_panoptic`. Received: 'x'",
        ),
        ("coco_stuff", {"images": "a", "label_dir": "b"}, "`data.train.instances_json` must be"),
        ("cityscapes", {"images": "a"}, "`data.train.label_dir` must be given with `format: city"),
        ("cityscapes", {**PANOPTIC, "label_dir": "x"}, "`data.train.label_dir` is not read with"),
    ],
)
def test_paths_that_a_format_does_not_have(tmp_path, form, paths, fault):
    data = {"train": {"format": form, **paths}, "validation": PANOPTIC}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    with pytest.raises(ConfigError) as caught:
        config = load_config(tmp_path / "config.yaml")
        splits.resolve_data(config, "unused")
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.train.format=voc", r"`data.train.format` must be one of \('coco_panoptic', "),
        (
            "data.validation.format=coco_instances",
            r"`model.tasks` must be \['instance'\] with data.validation.format: coco_instances",
        ),
        (
            "data.train.format=label_maps",
            r"`model.tasks` must be \['semantic'\] with data.train.format: label_maps",
        ),
    ],
)
def test_rules_of_a_format(tmp_path, override, fault):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match=fault):
        load_config(tmp_path / "config.yaml", [override])
    config = load_config(
        tmp_path / "config.yaml",
        [
            "data.train.format=coco_instances",
            "data.validation.format=coco_instances",
            "model.tasks=[instance]",
        ],
    )
    assert config.data.train.format == "coco_instances"


def test_a_run_goes_on_from_another_folder(root, tmp_path, monkeypatch):
    """With a root or without one, the paths of a resolved configuration are absolute."""
    monkeypatch.chdir(tmp_path.parent)
    relative = {key: f"{tmp_path.name}/{path}" for key, path in PANOPTIC.items()}
    for data in (
        DataConfig(root=tmp_path.name, train=PANOPTIC, validation=PANOPTIC),
        DataConfig(train=relative, validation=relative, index_cache=f"{tmp_path.name}/cache"),
    ):
        config = Config(data=data, train={"initial_weights": "backbone.npz"})
        resolved = splits.resolve_data(config, root)
        save_config(resolved, tmp_path / "config.yaml")
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            loaded = load_config(tmp_path / "config.yaml")
            assert len(splits.load_split(loaded.data, "validation").images) == 1
        assert loaded.train.initial_weights == str(tmp_path.parent / "backbone.npz")
    assert loaded.data.index_cache == str(tmp_path / "cache")


def test_what_is_not_there_is_said_to_be_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = load_config("coco_r50_1x").data
    for load in (splits.load_index, splits.load_split):
        with pytest.raises(DataError) as caught:
            load(data, "train")
        assert str(caught.value) == (
            "datasets/coco/train2017: cannot be read: no such file or folder "
            "(`data.train.images`); `data.root`, datasets/coco, must hold train2017, "
            "annotations/panoptic_train2017.json, annotations/panoptic_train2017, "
            "annotations/instances_train2017.json, from COCO 2017, images and panoptic and "
            "instance annotations (https://cocodataset.org/#download)"
        )
    data = DataConfig(root=str(tmp_path), train=PANOPTIC)
    with pytest.raises(DataError, match=r"images: cannot be read: no such file or folder"):
        splits.load_split(data, "train")
