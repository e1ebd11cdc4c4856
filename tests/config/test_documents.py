"""The schema and the page of the configuration are those of the models."""

import json
import pathlib
import runpy

import jsonschema
import pytest
import yaml

from tf_panoptic_fpn import config

ROOT = pathlib.Path(__file__).parents[2]
RENDER = runpy.run_path(str(ROOT / "docs/render_configuration.py"))
SCHEMA = json.loads((ROOT / "docs/config.schema.json").read_text(encoding="utf-8"))
KEEPS_TO = jsonschema.Draft202012Validator(SCHEMA)


def test_both_are_current():
    assert RENDER["schema"]() == SCHEMA, "run docs/render_configuration.py"
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert RENDER["page"]() == page, "run docs/render_configuration.py"


def test_every_key_has_a_meaning():
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        for key, field in section["properties"].items():
            assert field.get("description") or key == "format", key


@pytest.mark.parametrize("name", config.list_recipes())
def test_a_recipe_names_the_schema_and_keeps_to_it(name):
    path = ROOT / "configs" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "docs/config.schema.json"
    KEEPS_TO.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "modle: {}",
        "train: {step: 3}",
        "train: {steps: 0}",
        "model: {norm: batch}",
        "merge: {score_threshold: 1.5}",
        "data: {train: {format: voc}}",
        "data: {train: {format: label_maps, panoptic_dir: a}}",
        "data: {canvases: [[100, 96]]}",
        "model: {rpn_top_k_test: [1, 2, 3]}",
    ],
)
def test_the_schema_finds_faults(text):
    with pytest.raises(jsonschema.ValidationError):
        KEEPS_TO.validate(yaml.safe_load(text))


def test_the_resolved_whole_keeps_to_the_schema():
    whole = yaml.safe_load(config.format_config(config.load_config("quickstart")))
    KEEPS_TO.validate(whole)
