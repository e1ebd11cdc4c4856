"""Who may import whom, and what the package shows."""

import ast
import pathlib

import pytest

import tf_panoptic_fpn

PACKAGE = pathlib.Path(__file__).parent.parent / "tf_panoptic_fpn"
BASE = {"errors", "schema", "categories", "cityscapes_labels", "config"}
LAYERS = {
    "errors": set(),
    "schema": set(),
    "categories": {"errors"},
    "cityscapes_labels": set(),
    "config": {"errors", "config_rules"},
    "config_rules": {"errors"},
    "workdir": {"errors"},
    "ops": set(),
    "losses": {"ops", "schema"},
    "models": {"ops", "schema", "losses"},
    "weights": {"models", "errors"},
    "visualize": {"categories", "schema", "errors"},
    # `data.show` draws with `visualize`.
    "data": {"ops", "visualize", *BASE},
    # `data.images` reads and writes the COCO panoptic PNG.
    "evaluation": {"ops", "data.images", "visualize", *BASE},
    "training": {"build", "models", "losses", "data", "workdir", "weights", *BASE},
    "build": {
        "config_rules",
        "models",
        "losses",
        "data",
        "training.optimizer",
        "weights",
        "ops",
        *BASE,
    },
    "serving": {"build", "models", "ops", "data.decode", *BASE},
    "saved_model": BASE,
    "prediction_inputs": {"data.video", *BASE},
    "prediction_files": {"prediction_inputs", "data", "evaluation", "visualize", "workdir", *BASE},
    "test_time_augmentation": {"serving", "ops", *BASE},
    "class_shares": {"data", *BASE},
}


def imported(path):
    """Modules of this package that a file imports, dotted, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tf_panoptic_fpn"):
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            module = node.module.removeprefix("tf_panoptic_fpn").lstrip(".")
            names = [module] if module else [alias.name for alias in node.names]
            yield from names


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_import_direction(layer):
    files = [PACKAGE / f"{layer}.py"] if (PACKAGE / f"{layer}.py").exists() else []
    files += (PACKAGE / layer).rglob("*.py") if (PACKAGE / layer).is_dir() else []
    assert files
    for file in files:
        for module in imported(file):
            allowed = LAYERS[layer] | {layer}
            parts = module.split(".")
            names = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
            assert names & allowed, f"{file}: must not import {module}"


def test_public_names():
    assert all(hasattr(tf_panoptic_fpn, name) for name in tf_panoptic_fpn.__all__)
    assert len(set(tf_panoptic_fpn.__all__)) == len(tf_panoptic_fpn.__all__)
