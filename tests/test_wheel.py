"""The wheel alone, without a checkout: trained, used and exported from an empty folder."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from command_line import ROOT
from PIL import Image

SOURCES = ("tf_panoptic_fpn", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TINY = {
    "model.backbone": "resnet18",
    "model.fpn_channels": 32,
    "model.semantic_channels": 32,
    "model.box_head_units": 32,
    "model.mask_head_channels": 16,
    "model.rpn_top_k_train": "[50, 50]",
    "model.rpn_top_k_test": "[50, 20]",
    "model.rois_per_image": 16,
    "model.max_detections": 10,
    "data.shapes": "{train_images: 2, validation_images: 1, image_size: [64, 96]}",
    "data.train.short_sides": "[64]",
    "data.validation.short_sides": "[64]",
    "data.canvases": "[]",
    "data.augment.copy_paste_probability": 0.0,
    "optimizer.warmup_steps": 1,
    "optimizer.drop_steps": "[1]",
    "train.steps": 2,
    "train.batch_size": 1,
    "train.checkpoint_every": 2,
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs the installed console script in an empty folder; returns (what ran, the folder)."""
    folder = tmp_path_factory.mktemp("wheel")
    source, site, empty = (folder / name for name in ("source", "site", "empty"))
    source.mkdir()
    empty.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    shutil.rmtree(source)

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run, site, empty


@pytest.mark.slow
def test_train_predict_and_export_from_an_empty_folder(installed):
    run, site, empty = installed
    where = run("-c", "import tf_panoptic_fpn; print(tf_panoptic_fpn.__file__)").stdout
    assert where.startswith(str(site))
    program = site / "bin" / "tf-panoptic-fpn"
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    done = run(program, "train", "--config=quickstart", *settings)
    assert "report.html" in done.stdout
    words = ("warning", "error", "cuda", "absl")
    lines = [line for line in done.stderr.splitlines() if any(w in line.lower() for w in words)]
    # Of so few drawn images some lack a class, and that is said.
    assert all("there is no annotation of" in line for line in lines), lines
    workdir = empty / "runs" / "quickstart"
    assert json.loads((workdir / "results.json").read_text(encoding="utf-8"))["images"] == 1

    Image.new("RGB", (80, 60), (90, 140, 60)).save(empty / "street.png")
    run(program, "predict", "--model", workdir, "--output=out", "street.png")
    assert {path.name for path in (empty / "out").iterdir()} == {
        "street.json",
        "street_overlay.png",
        "street_panoptic.png",
    }
    done = run(program, "export", "--model", workdir, "--output=served/1")
    assert done.stdout == "served/1\n"
    assert (empty / "served" / "1" / "saved_model.pb").is_file()
    assert (empty / "served" / "1" / "assets" / "categories.json").is_file()
