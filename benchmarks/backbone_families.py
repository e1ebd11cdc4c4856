"""Each family of backbones on the quickstart's data: trains, saves, loads, exports.

python benchmarks/backbone_families.py [--config=quickstart] [--steps=20] [NAME ...]

NAME is a class of KerasHub or the end of `keras_applications/...`; left out, all families, each in
its smallest variant. KerasHub's are made with small arguments and read from the folder of a preset,
without weights. A line each: the mean of the first and of the last three losses; and of what the
exports give on an image of noise, in float32 beside the `.keras` file, the pixels of the panoptic
map that differ and the largest difference of a score.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import measure
import numpy as np
from hub_presets import HUB, make_hub_backbone

from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.export.onnx_file import export_onnx
from tf_panoptic_fpn.export.saved_model import export_model
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.training.loop import train

APPLICATIONS = (
    *("MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny", "MobileNet"),
    *("MobileNetV2", "ResNet50V2", "DenseNet121", "VGG16", "ResNet50"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or [*HUB, *APPLICATIONS]:
            with contextlib.redirect_stdout(sys.stderr):
                line = measure_family(name, arguments, pathlib.Path(folder))
            print(json.dumps({"benchmark": "backbone_families", **line}), flush=True)


def measure_family(name, arguments, folder):
    backbone = f"keras_applications/{name}"
    if name in HUB:
        preset = folder / "presets" / name
        make_hub_backbone(name).save_to_preset(str(preset))
        backbone = f"keras_hub/{preset}"
    config = load_config(
        arguments.config,
        [
            *(f"model.backbone={backbone}", "model.norm=sync_batch_norm", "model.freeze_at=0"),
            *("optimizer.algorithm=adamw", "optimizer.learning_rate=0.001"),
            *(f"train.steps={arguments.steps}", "optimizer.warmup_steps=0"),
            *("train.log_every=1", f"optimizer.drop_steps=[{arguments.steps}]"),
        ],
    )
    run = folder / name
    start = measure.processor_seconds()
    train(config, run)
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [row["loss"]["total"] for row in rows if "loss" in row]
    line = {"backbone": name, "losses": [np.mean(losses[:3]), np.mean(losses[-3:])]}
    line["train_processor_seconds"] = measure.processor_seconds() - start
    source = find_model(run)
    image = np.random.default_rng(0).integers(0, 256, (1, 120, 168, 3), np.uint8)
    (expected,) = load_predictor(run).run(image)
    for kind, export in (("saved_model", export_model), ("onnx", export_onnx)):
        (received,) = load_predictor(export(source)).run(image)
        line[kind] = differences(expected, received)
    keras.backend.clear_session()
    return line


def differences(expected, received):
    maps = [values["panoptic_map"] for values in (expected, received)]
    scores = [np.sort(np.asarray(v["instances"]["scores"]))[::-1] for v in (expected, received)]
    return {
        "pixels": int((maps[0] != maps[1]).sum()),
        "scores": float(np.abs(scores[0] - scores[1]).max()),
    }


if __name__ == "__main__":
    exit_on_error(main)
