"""Seconds an image of the runtimes that a model is exported to, beside TensorFlow's, in one run.

python benchmarks/runtimes.py --model=runs/quickstart --height=128 --width=160
python benchmarks/runtimes.py --config=configs/coco_r50_1x.yaml --height=800 --width=1216

Of a configuration the model is untrained, its heads wide enough to find something. One round, which
is not counted, warms up. Int8 is calibrated on the image.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measure import Stages, machine, print_table
from PIL import Image

from tf_panoptic_fpn import build_model, load_config, load_predictor, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.export.onnx_file import write_onnx
from tf_panoptic_fpn.export.openvino_model import write_openvino
from tf_panoptic_fpn.inference.onnx_runtime import OnnxPredictor
from tf_panoptic_fpn.inference.openvino_runtime import OpenvinoPredictor
from tf_panoptic_fpn.inference.predictor import Predictor

SPREAD = {"objectness/kernel": 0.1, "deltas/kernel": 0.02, "classes/kernel": 0.15}


def untrained(path):
    """A predictor of an untrained model, with some of its weights spread wide."""
    config = load_config(path)
    model = build_model(config.model)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        for name, deviation in SPREAD.items():
            if weight.path.endswith(name):
                weight.assign(rng.normal(0, deviation, weight.shape))
    things, stuff = config.model.num_thing_classes, config.model.num_stuff_classes
    categories = CategoryTable(
        tuple(Category(i + 1, str(i), i < things) for i in range(things + stuff))
    )
    return Predictor(model, categories, config.merge, config.data.validation)


def picture(height, width):
    """uint8 `[H, W, 3]`: noise, coarse and fine."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 12, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", help="a trained model; without it an untrained one")
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--image", help="by default noise of the size below")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    line = {"benchmark": "runtimes", **machine("tensorflow", "onnxruntime", "openvino")}
    predictor = load_predictor(arguments.model) if arguments.model else untrained(arguments.config)
    if arguments.image:
        image = np.asarray(Image.open(arguments.image).convert("RGB"))
    else:
        image = picture(arguments.height, arguments.width)
    predictors, sizes = {"tensorflow": predictor}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, calibration in (("", ()), ("_int8", (image,))):
            path = pathlib.Path(folder) / f"model{name}"
            for runtime, suffix, write, load in (
                ("onnxruntime", ".onnx", write_onnx, OnnxPredictor),
                ("openvino", ".xml", write_openvino, OpenvinoPredictor),
            ):
                file = path.with_suffix(suffix)
                write(predictor, file, calibration)
                predictors[runtime + name] = load(file)
            sizes[f"onnx{name}_mb"] = round(path.with_suffix(".onnx").stat().st_size / 1e6, 1)
        stages = Stages()
        for round_ in range(arguments.rounds + 1):
            for name, given in predictors.items():
                if round_ == 0:
                    (result,) = given.run(image[None])
                else:
                    (result,) = stages.run(name, given.run, image[None])
                if name == "tensorflow":
                    instances = result.get(schema.INSTANCES, {})
                    line["detections"] = int(instances.get(schema.NUM_DETECTIONS, 0))
                    line["segments"] = int(result[schema.NUM_SEGMENTS])
    figures = stages.medians()
    print_table(figures)
    ratios = {
        name: round(row["cpu"] / figures["tensorflow"]["cpu"], 3) for name, row in figures.items()
    }
    line |= {"model": arguments.model or arguments.config, "image": list(image.shape[:2])}
    print(json.dumps({**line, **sizes, "stages": figures, "cpu_ratios": ratios}), file=sys.stdout)


if __name__ == "__main__":
    main()
