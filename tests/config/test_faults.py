"""Everything that is wrong with a configuration, at once and as it is written."""

import pytest

from tf_panoptic_fpn.config import (
    Config,
    OptimizerConfig,
    load_config,
    load_run_config,
    save_config,
)
from tf_panoptic_fpn.config.recipes import recipes_folder
from tf_panoptic_fpn.errors import ConfigError


def faults(tmp_path, text, overrides=()):
    """The lines of the error, without the folder."""
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value).replace(f"{tmp_path}/", "").split("\n")


def test_all_faults_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
modle: {}
model:
  freeze_at: 9
  tasks: [instance, instance]
  norm:
  - 1
train: {steps: on, batch_size: 3, replicas: 2}
merge: {score_threshold: .nan, overlap_threshold: 1.5}
"""
    assert faults(
        tmp_path, text, ["data.train.short_sides=[0, 3.5]", "optimizer.clip_norm=-1"]
    ) == [
        "run.yaml:1: unknown key `modle`; did you mean `model`?",
        "run.yaml:3: `model.freeze_at` must be in [0, 5]. Received: 9",
        "run.yaml:4: `model.tasks` must be one or both of ('instance', 'semantic'). "
        "Received: [instance, instance]",
        "run.yaml:6: `model.norm` must be one of ('frozen_affine', 'group_norm', "
        "'sync_batch_norm'). Received: [1]",
        "run.yaml:7: `train.steps` must be int. Received: on",
        "run.yaml:7: `train.batch_size` must be a multiple of train.replicas (2). Received: 3",
        "run.yaml:8: `merge.score_threshold` must be a finite number. Received: .nan",
        "run.yaml:8: `merge.overlap_threshold` must be in [0, 1]. Received: 1.5",
        "--set: `data.train.short_sides[0]` must be above 0. Received: 0",
        "--set: `data.train.short_sides[1]` must be int. Received: 3.5",
        "--set: `optimizer.clip_norm` must be 0 or above. Received: -1",
    ]


def test_a_rule_between_values_waits_for_each_of_them(tmp_path):
    """No fault of drop_steps: how many steps there are is not known."""
    text = "train: {steps: many}\noptimizer: {drop_steps: [200000]}"
    assert faults(tmp_path, text) == ["run.yaml:1: `train.steps` must be int. Received: 'many'"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data: {train: {short_sides: [0]}}", "`data.train.short_sides[0]` must be above 0"),
        ("data: {train: {short_sides: []}}", "`data.train.short_sides` must not be empty"),
        ("tta: {short_sides: []}", "`tta.short_sides` must not be empty. Received: []"),
        ("model: {nms_iou: 1.01}", "`model.nms_iou` must be in [0, 1]. Received: 1.01"),
        ("optimizer: {learning_rate: .inf}", "must be a finite number. Received: .inf"),
        ("optimizer: {learning_rate: 0}", "`optimizer.learning_rate` must be above 0"),
        ("optimizer: {learning_rate: 1e}", "`optimizer.learning_rate` must be float"),
        ("optimizer: {drop_steps: [9, 8]}", "must be in ascending order, each once"),
        ("optimizer: {drop_steps: [8, 8]}", "must be in ascending order, each once"),
        (
            "{optimizer: {drop_steps: [8, 11]}, train: {steps: 10}}",
            "`optimizer.drop_steps` must be at most train.steps (10). Received: [8, 11]",
        ),
        (
            "{optimizer: {warmup_steps: 11}, train: {steps: 10}}",
            "`optimizer.warmup_steps` must be at most train.steps (10). Received: 11",
        ),
        (
            "data: {canvases: [[64, 96], [96, 64]]}",
            "`data.canvases` must be as large as the images, of short sides up to 800 and long "
            "sides up to 1333, at least once. Received: [[64, 96], [96, 64]]",
        ),
        (
            "data: {canvases: [[512, 992]], augment: {crop_size: [512, 1024]}}",
            "`data.canvases` must be as large as data.augment.crop_size, [512, 1024], at least",
        ),
        ("data: {validation: {records: a}}", "`data.validation.records` must be left out"),
        (
            "data: {augment: {scale_range: [2, 1]}}",
            "must be two factors above 0 in ascending order",
        ),
        ("data: {augment: {scale_range: [1]}}", "must be two factors above 0 in ascending order"),
        ("data: {augment: {crop_size: [1]}}", "must be a height and a width above 0, or empty"),
        ("data: {augment: {scale_relative_to: crop}}", "must be image without a scale_range"),
        ("data: {augment: {crop_by_class_probability: 1}}", "must be 0 without a crop_size"),
        ("data: {shapes: {image_size: [32, 64]}}", "`data.shapes.image_size[0]` must be 64 or"),
        ("model: {pixel_std: [1, 0, 1]}", "`model.pixel_std[1]` must be above 0. Received: 0"),
        (
            "model: {rpn_top_k_test: [1]}",
            "`model.rpn_top_k_test` must have 2 values. Received: [1]",
        ),
        ('train: {steps: "7"}', "`train.steps` must be int. Received: '7'"),
        ("train: {steps: 7.0}", "`train.steps` must be int. Received: 7.0"),
        ("train: {initial_weights: 2020-01-01}", "must be text. Received: 2020-01-01"),
        ("train: {jit_compile: 1}", "`train.jit_compile` must be true or false. Received: 1"),
        ("train: {1: 2}", "unknown key `train.1`"),
        ("data: {canvases: [[64]]}", "`data.canvases[0]` must have 2 values. Received: [64]"),
        ("data: {canvases: [[64, 32, 32]]}", "`data.canvases[0]` must have 2 values. Received"),
        ("train: {steps: 3, steps: 4}", "`train.steps` must be given once"),
        ("model: &m {tasks: *m}", "`model.tasks` must not hold itself"),
        ("a: !!timestamp x", "not YAML"),
    ],
)
def test_what_makes_no_sense(tmp_path, text, line):
    (found,) = faults(tmp_path, text)
    assert line in found


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "data:\n  train: {format: voc, label_dir: 3, short_sides: []}",
            [
                "`data.train.format` must be one of ('coco_panoptic', 'coco_instances', "
                "'coco_stuff', 'cityscapes', 'label_maps'). Received: 'voc'",
                "`data.train.short_sides` must not be empty. Received: []",
            ],
        ),
        (
            "data:\n  train: {format: cityscapes, instances_json: x, imags: y}",
            [
                "`data.train.instances_json` is not read with `format: cityscapes`. Received: 'x'",
                "unknown key `data.train.imags`; did you mean `images`?",
            ],
        ),
    ],
)
def test_a_split_of_a_format(tmp_path, text, lines):
    assert faults(tmp_path, text) == [f"run.yaml:2: {line}" for line in lines]


def test_a_mistyped_recipe_is_told(tmp_path):
    with pytest.raises(ConfigError, match="did you mean the recipe `quickstart`"):
        load_config("quickstrat")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", "model: {backbone: ré}".encode("latin-1")])
def test_a_file_that_is_not_text(tmp_path, data):
    (tmp_path / "run.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"run\.yaml: cannot be read: not UTF-8"):
        load_config(tmp_path / "run.yaml")


def test_byte_order_mark(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xef\xbb\xbftrain: {steps: 3}")
    assert load_config(tmp_path / "run.yaml").train.steps == 3


def test_likely_slips_are_warned_about(tmp_path, caplog):
    split = "{images: a, panoptic_json: b, panoptic_dir: c}"
    (tmp_path / "run.yaml").write_text(f"data: {{train: {split}, validation: {split}}}")
    load_config(tmp_path / "run.yaml")
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/run.yaml: `data.validation` has the files of `data.train`: the figures will "
        "be too good"
    ]
    caplog.clear()
    load_config("quickstart", ["train.steps=900", "optimizer.warmup_steps=1000"])
    assert [r.getMessage() for r in caplog.records] == [
        f"{recipes_folder()}/quickstart.yaml: `optimizer.warmup_steps` (1000 by default) is more "
        "than `train.steps` (900): the learning rate stays below its value"
    ]


# What version 0.1 wrote in the folder of a run: each path of each format, and rules that it lacked.
WRITTEN_BY_0_1 = """\
model: {num_thing_classes: 8, num_stuff_classes: 11, tasks: [instance, semantic]}
data:
  root: data
  index_cache: ''
  shapes: null
  train: &split
    format: cityscapes
    images: leftImg8bit/train
    panoptic_json: ''
    panoptic_dir: ''
    instances_json: ''
    label_dir: gtFine/train
    categories: ''
    records: ''
    short_sides: [800]
    max_long_side: 1333
    flip_probability: 0.5
  validation: *split
  canvases: []
optimizer: {warmup_steps: 100, drop_steps: [260, 310]}
train: {steps: 20}
"""


def test_the_configuration_of_a_run_of_version_0_1(tmp_path, caplog):
    path = tmp_path / "config.yaml"
    path.write_text(WRITTEN_BY_0_1)
    config = load_run_config(path)
    assert config.optimizer.drop_steps == (260, 310)
    paths = {"images": "x/leftImg8bit/train", "label_dir": "x/gtFine/train"}
    assert {key: str(path) for key, path in config.data.train.paths("x").items()} == paths
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}:20: `optimizer.drop_steps` must be at most train.steps (20). Received: [260, 310]",
        f"{path}:20: `optimizer.warmup_steps` must be at most train.steps (20). Received: 100",
    ]
    with pytest.raises(ConfigError, match=r"--set: `optimizer.drop_steps` must be at most"):
        load_run_config(path, ["optimizer.drop_steps=[21]"])
    save_config(config, path)
    assert load_run_config(path) == config
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_in_python():
    with pytest.raises(ValueError, match=r"less than or equal to 5"):
        Config(model={"freeze_at": 6})
    with pytest.raises(ValueError, match="`drop_steps` must be in ascending order"):
        OptimizerConfig(drop_steps=[2, 1])
    with pytest.raises(ValueError, match="frozen"):
        OptimizerConfig().momentum = 0.5
    assert OptimizerConfig(drop_steps=[1, 2]).drop_steps == (1, 2)
