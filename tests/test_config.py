"""The configuration loader."""

import dataclasses
import inspect

import pytest

from tf_panoptic_fpn import PanopticFPN, config
from tf_panoptic_fpn.errors import ConfigError


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
    text = "data: {canvases: [[64, 96]], shapes: {seed: 3}}\nmodel: {anchor_ratios: [1, 2]}"
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
        ("", ["model.norm=batch"], "`model.norm` must be one of"),
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
        ("data: {canvases: [[100, 96]]}", [], "multiples of 32"),
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
    assert defaults == dataclasses.asdict(config.ModelConfig())


@pytest.mark.parametrize("path", sorted(__import__("pathlib").Path("configs").rglob("*.yaml")))
def test_shipped_configs_load(path):
    assert isinstance(config.load_config(path), config.Config)
