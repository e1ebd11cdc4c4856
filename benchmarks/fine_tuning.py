"""Fine-tuning by names of classes against the same run from scratch, on CamVid.

python benchmarks/fine_tuning.py [--samples=../shared/samples] [--folder=DIR] [--learning-rate=.01]

A model is trained on 8 of CamVid's 11 classes and the even frames, the other classes being void.
Then one is trained on 4 of those and 3 others on the odd frames, from the first (`by_name`) and
from scratch, all else equal; both are scored on all validation frames before the first step and
after the last. What `--folder` holds of an earlier call is not done again.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from tf_panoptic_fpn.config import load_config, save_config
from tf_panoptic_fpn.data.splits import load_index, resolve_data
from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png, write_panoptic_png
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.models.build_model import build_model
from tf_panoptic_fpn.training.loop import train
from tf_panoptic_fpn.weights.initial_weights import load_initial_weights
from tf_panoptic_fpn.workdir import Workdir

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = ("Car", "Bicyclist", "Sky", "Building", "Road", "Pole", "SignSymbol", "Fence")
OWN = ("Car", "Pedestrian", "Sky", "Building", "Road", "Pavement", "Tree")
# CamVid's recipe, narrower and at half the size.
SETTINGS = (
    "model.fpn_channels=64",
    "model.semantic_channels=64",
    "model.box_head_units=128",
    "model.mask_head_channels=32",
    "model.rpn_top_k_train=[400, 200]",
    "model.rpn_top_k_test=[200, 100]",
    "model.rois_per_image=64",
    "data.train.short_sides=[160, 180]",
    "data.train.max_long_side=320",
    "data.validation.short_sides=[180]",
    "data.validation.max_long_side=320",
    "train.deterministic=false",
    "train.checkpoint_every=1000",
    "merge.stuff_area=512",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=pathlib.Path, default=ROOT.parent / "shared" / "samples")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the runs here")
    parser.add_argument("--base-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.01, help="of the two compared")
    arguments = parser.parse_args()
    # What the runs say is not the benchmark's line.
    said_elsewhere = contextlib.redirect_stdout(sys.stderr)
    with tempfile.TemporaryDirectory() as temporary, said_elsewhere:
        folder = arguments.folder or pathlib.Path(temporary)
        camvid = arguments.samples / "camvid"
        base = folder / "base"
        write_classes(camvid, folder / "base_data", BASE, even=True)
        train(settings_of(folder / "base_data", BASE, arguments.base_steps), base)
        write_classes(camvid, folder / "own_data", OWN, even=False)
        line = {"benchmark": "fine_tuning", "base_steps": arguments.base_steps}
        line["steps"] = arguments.steps
        line["learning_rate"] = rate = arguments.learning_rate
        for name, overrides in (
            ("scratch", []),
            ("by_name", [f"train.initial_weights={base}", "train.match_classes=by_name"]),
        ):
            overrides = [*overrides, f"optimizer.learning_rate={rate}"]
            config = settings_of(folder / "own_data", OWN, arguments.steps, overrides)
            line[f"{name}_before"] = scores(write_first(config, folder / f"{name}_before"))
            trained = folder / f"{name}_{rate:g}"
            train(config, trained)
            line[f"{name}_after"] = scores(trained)
            line[f"{name}_losses"] = losses(trained)
    line["processor_minutes"] = round(time.process_time() / 60, 1)
    print(json.dumps(line))


def settings_of(data, names, steps, overrides=()):
    """The `Config` of a run on some of the classes."""
    things = sum(name in ("Car", "Pedestrian", "Bicyclist") for name in names)
    schedule = [
        f"train.steps={steps}",
        f"optimizer.warmup_steps={min(steps // 4, 50)}",
        f"optimizer.drop_steps=[{max(steps * 4 // 5, 1)}]",
    ]
    counts = [
        f"model.num_thing_classes={things}",
        f"model.num_stuff_classes={len(names) - things}",
        f"data.root={data}",
    ]
    return load_config(ROOT / "configs/camvid.yaml", [*SETTINGS, *schedule, *counts, *overrides])


def write_classes(camvid, folder, names, even):
    """Writes CamVid with some of its classes, and every other training frame."""
    if (folder / "panoptic_val.json").exists():
        return
    for split in ("train", "val"):
        tree = json.loads((camvid / f"panoptic_{split}.json").read_text(encoding="utf-8"))
        categories = [c for c in tree["categories"] if c["name"] in names]
        kept = {category["id"] for category in categories}
        annotations = tree["annotations"]
        if split == "train":
            annotations = annotations[int(not even) :: 2]
        (folder / f"panoptic_{split}").mkdir(parents=True, exist_ok=True)
        for annotation in annotations:
            own = [s for s in annotation["segments_info"] if s["category_id"] in kept]
            annotation["segments_info"] = own
            png = f"panoptic_{split}/{annotation['file_name']}"
            ids = read_panoptic_png(camvid / png)
            is_own = np.isin(ids, [segment["id"] for segment in own])
            write_panoptic_png(np.where(is_own, ids, 0), folder / png)
        annotations = [a for a in annotations if a["segments_info"]]
        shown = {annotation["image_id"] for annotation in annotations}
        images = [image for image in tree["images"] if image["id"] in shown]
        tree = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"panoptic_{split}.json").write_text(json.dumps(tree), encoding="utf-8")
    (folder / "images").symlink_to(camvid.resolve() / "images")


def write_first(config, folder):
    """Writes the run of a `Config` as it is before the first step."""
    files = Workdir(folder)
    files.create()
    config = resolve_data(config, folder)
    save_config(config, files.config)
    categories = load_index(config.data, "train").categories
    categories.save(files.categories)
    keras.utils.set_random_seed(config.train.seed)
    model = build_model(config.model)
    load_initial_weights(model, config.train, categories)
    model.save(files.model)
    return folder


def scores(folder):
    """Scores a run: its headline figures in per cent."""
    results = evaluate_run(find_model(folder))
    panoptic = results["panoptic"]
    figures = {
        "PQ": panoptic["All"]["PQ"],
        "things": panoptic["Things"]["PQ"],
        "stuff": panoptic["Stuff"]["PQ"],
        "mIoU": results["semantic"]["mIoU"],
    }
    return {name: round(100 * value, 1) for name, value in figures.items()}


def losses(folder):
    """The means of the total loss over the first and the last 20 steps."""
    lines = Workdir(folder).metrics.read_text(encoding="utf-8").splitlines()
    totals = [json.loads(line)["loss"]["total"] for line in lines]
    return [round(totals[0], 3), round(totals[-1], 3)]


if __name__ == "__main__":
    main()
