"""The configuration loader."""

import inspect
import subprocess
import sys
import typing

import pytest

from tf_panoptic_fpn import PanopticFPN, config
from tf_panoptic_fpn.backbones import conv_norm
from tf_panoptic_fpn.backbones.resnet import ResNet, make_backbone
from tf_panoptic_fpn.config.model import RESNET_PIXELS, RESNETS
from tf_panoptic_fpn.config.train import WeightSource
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models import assembly, box_head, semantic_head
from tf_panoptic_fpn.weights.convert import SOURCES


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_missing_keys_keep_their_defaults(tmp_path):
    loaded = config.load_config(write(tmp_path, "data: {train: {flip_probability: 0.0}}"))
    assert loaded.data.train.flip_probability == 0.0
    assert loaded.data.train.short_sides == (640, 672, 704, 736, 768, 800)
    assert loaded.model == config.ModelConfig()


def test_overrides_win_and_scientific_notation_is_a_number(tmp_path):
    path = write(tmp_path, "optimizer: {weight_decay: 1e-4}\nmodel: {backbone: resnet18}")
    loaded = config.load_config(path, ["model.backbone=resnet101", "train.steps=7"])
    assert (loaded.model.backbone, loaded.train.steps) == ("resnet101", 7)
    assert loaded.optimizer.weight_decay == 1e-4


def test_saved_config_loads_equal(tmp_path):
    data = "{canvases: [[64, 96]], shapes: {seed: 3}, train: {short_sides: [64]}}"
    text = f"data: {data}\nmodel: {{anchor_ratios: [1, 2]}}"
    loaded = config.load_config(write(tmp_path, text))
    config.save_config(loaded, tmp_path / "saved.yaml")
    assert config.load_config(tmp_path / "saved.yaml") == loaded
    assert loaded.data.canvases == ((64, 96),)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("modle: {}", [], "unknown key `modle`; did you mean `model`?"),
        ("train: {step: 3}", [], "unknown key `train.step`; did you mean `steps`?"),
        ("train: {steps: many}", [], "`train.steps` must be int. Received: 'many'"),
        ("train: {steps: true}", [], "`train.steps` must be int"),
        ("train: {steps: 0}", [], "`train.steps` must be above 0. Received: 0"),
        ("train: 3", [], "`train` must be a mapping"),
        ("- 1", [], "the file must be a mapping"),
        ("a: [", [], "not YAML"),
        ("data: {train: {short_sides: 800}}", [], "must be a list"),
        ("model: {rpn_top_k_test: [1, 2, 3]}", [], "must have 2 values"),
        ("model: {backbone: vgg16}", [], "`model.backbone` must be one of"),
        ("model: {backbone: keras_hub/}", [], "`model.backbone` must be one of"),
        ("model: {backbone: resnet51}", [], "did you mean resnet"),
        ("model: {drop_path: 0.1}", [], "`model.drop_path` must be 0 with resnet50. Received: 0.1"),
        (
            "model: {backbone: keras_hub/a, norm: group_norm}",
            [],
            "`model.norm` must be frozen_affine or sync_batch_norm",
        ),
        ("model: {backbone: keras_hub/a, deformable_stages: [3]}", [], "has no bottlenecks"),
        ("", ["optimizer.layer_decay=0"], "`optimizer.layer_decay` must be in (0, 1]"),
        ("", ["model.norm=batch"], "`model.norm` must be one of"),
        ("", ["optimizer.momentum_style=x"], "`optimizer.momentum_style` must be one of"),
        ("model: {tasks: []}", [], "`model.tasks` must not be empty. Received: []"),
        ("model: {tasks: [semantic, semantic]}", [], "`model.tasks` must be one or both of"),
        ("model: {tasks: [depth]}", [], "`model.tasks[0]` must be one of ('instance', 'semantic')"),
        ("model: {tasks: semantic}", [], "`model.tasks` must be a list"),
        ("model: {fpn_groups: 3}", [], "`model.fpn_groups` must be 1, or 2 with both tasks"),
        ("model: {fpn_groups: 0}", [], "`model.fpn_groups` must be 1 or above. Received: 0"),
        ("model: {tasks: [instance], fpn_groups: 2}", [], "1, or 2 with both tasks"),
        ("model: {fpn_groups: 2, fpn_channels: 127}", [], "a multiple of fpn_groups"),
        ("model: {fpn_norm: group_norm, fpn_channels: 48}", [], "a multiple of the 32 norm_groups"),
        (
            "model: {mask_head_norm: group_norm, norm_groups: 3, semantic_channels: 96}",
            [],
            "of the 3",
        ),
        ("model: {backbone: resnet18, deformable_stages: [3]}", [], "resnet18 has no bottlenecks"),
        ("model: {deformable_stages: [1]}", [], "`model.deformable_stages"),
        ("model: {cascade_ious: [.5, .6]}", [], "`model.class_agnostic_boxes` must be true with"),
        (
            "model: {cascade_ious: [.5], class_agnostic_boxes: true, "
            "cascade_delta_weights: [[10, 10, 5, 5], [20, 20, 10, 10]]}",
            [],
            "`model.cascade_delta_weights` must be empty, or a row for each of 1 cascade_ious",
        ),
        ("model: {semantic_channels: 100}", [], "`model.semantic_channels` must be a multiple of"),
        ("model: {semantic_design: deep}", [], "`model.semantic_design` must be one of"),
        ("model: {semantic_fuse: max}", [], "`model.semantic_fuse` must be one of"),
        ("model: {semantic_things: none}", [], "`model.semantic_things` must be one of"),
        ("model: {freeze_at: 6}", [], "`model.freeze_at` must be in [0, 5]"),
        ("model: {roi_sampling_ratio: -1}", [], "`model.roi_sampling_ratio` must be 0 or above"),
        ("model: {lambda_semantic: -0.5}", [], "`model.lambda_semantic` must be 0 or above"),
        ("model: {lambda_instance: -0.5}", [], "`model.lambda_instance` must be 0 or above"),
        ("model: {num_thing_classes: 0}", [], "above 0 with the task instance"),
        ("model: {num_stuff_classes: 0}", [], "above 0 with the task semantic"),
        ("model: {tasks: [semantic], num_thing_classes: -1}", [], "0 or above. Received: -1"),
        ("train: {loss_schedule: random}", [], "`train.loss_schedule` must be one of"),
        ("", ["train.loss_schedule=alternating", "model.tasks=[semantic]"], "must be combined"),
        ("train: {initial_weights_source: tf}", [], "`train.initial_weights_source` must be one"),
        ("", ["train.steps"], "--set takes a.b=value"),
        ("", ["train.steps.x=1"], "must be int"),
        (
            "",
            [
                "train.steps=[",
            ],
            "not YAML",
        ),
        ("train: {batch_size: 3, replicas: 2}", [], "a multiple of train.replicas (2)"),
        ("train: {jit_compile: true}", [], "`data.canvases` must be given"),
        (
            "model: {backbone: keras_applications/MobileNetV3Large}\ntrain: {rematerialize: true}",
            [],
            "`train.rematerialize` must be false with keras_applications/MobileNetV3Large",
        ),
        ("data: {canvases: [[100, 96]]}", [], "must be a multiple of 32"),
        ("data: {validation: {flip_probability: 2}}", [], "in [0, 1]"),
        ("merge: {score_threshold: 1.5}", [], "in [0, 1]"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, text, overrides, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        config.load_config(path, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        config.load_config(tmp_path / "absent.yaml")


def test_model_config_is_the_signature_of_the_model():
    parameters = inspect.signature(PanopticFPN).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert defaults == config.ModelConfig().model_dump()


def choices(name):
    return typing.get_args(config.ModelConfig.model_fields[name].annotation)


def test_the_choices_are_those_of_the_code():
    assert choices("norm") == conv_norm.NORMS
    assert config.ModelConfig().tasks == assembly.TASKS
    assert choices("semantic_things") == assembly.SEMANTIC_THINGS
    assert choices("semantic_design") == semantic_head.DESIGNS
    assert choices("semantic_fuse") == semantic_head.FUSIONS
    assert choices("box_head") == tuple(box_head.DESIGNS)
    for name in ("fpn_norm", "box_head_norm", "mask_head_norm"):
        assert choices(name) == assembly.HEAD_NORMS
    assert set(typing.get_args(WeightSource)) == {"infer", *SOURCES}
    for name in RESNETS:
        make_backbone(name, "frozen_affine", 2, True)
    assert {"pixel_mean": ResNet.pixel_mean, "pixel_std": ResNet.pixel_std} == RESNET_PIXELS


def test_neither_tensorflow_nor_keras_is_imported():
    code = "import sys, tf_panoptic_fpn.config; print({'tensorflow', 'keras'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.class_synonyms={van: car}"], r"class_synonyms` must be empty unless .*by_name"),
        (["train.initial_categories=a.json"], r"initial_categories` must be empty unless"),
        (["train.class_synonyms={van: 3}", "train.match_classes=by_name"], "class_synonyms.*3"),
        (["train.match_classes=names"], "match_classes` must be .*'names'"),
    ],
)
def test_rules_of_the_initial_weights(tmp_path, overrides, message):
    (tmp_path / "a.yaml").touch()
    with pytest.raises(ConfigError, match=message) as raised:
        config.load_config(tmp_path / "a.yaml", ["train.initial_weights=x", *overrides])
    assert "\n" not in str(raised.value)


def test_class_synonyms_are_written_and_read(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {match_classes: by_name, class_synonyms: {1: car}}")
    loaded = config.load_config(tmp_path / "a.yaml", ["train.class_synonyms.van=car"])
    assert loaded.train.class_synonyms == {"1": "car", "van": "car"}
    config.save_config(loaded, tmp_path / "b.yaml")
    assert config.load_config(tmp_path / "b.yaml") == loaded


def test_matching_without_a_checkpoint_is_warned_about(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {match_classes: by_name}")
    assert any(
        "from scratch" in line for line in config.load_config(tmp_path / "a.yaml").warnings()
    )
