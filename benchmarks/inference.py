"""Seconds and memory of an image's way through the network and the merge, stage by stage.

python benchmarks/inference.py [--config=coco_r50_1x --height=800 --width=1216 --rounds=3]
    [--peer=torchvision]

The model is untrained, but finds as many objects as it may; the merge uses half of them. "whole" is
one graph from the image to the panoptic map, and "panoptic only" the same without the masks that
the merge does not use. The peer is torchvision's Mask R-CNN, which has no semantic branch.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a peer that spins would seem busy

import measure
import tensorflow as tf
from busy_model import build_busy_model, make_image, merged_score, numbered_categories

from tf_panoptic_fpn import load_config, schema
from tf_panoptic_fpn.analysis.costs import WHOLE, count_costs
from tf_panoptic_fpn.errors import ConfigError, exit_on_error
from tf_panoptic_fpn.inference.merge import Thresholds, merge_outputs
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.semantic_map import semantic_map
from tf_panoptic_fpn.models.assembly import ROI_LEVELS
from tf_panoptic_fpn.models.fpn import branch_features

PEERS = {"torchvision": "pip install torchvision"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="coco_r50_1x")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1216)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=PEERS)
    arguments = parser.parse_args()
    image = make_image(arguments.height, arguments.width)
    run_peer = torchvision_peer(image) if arguments.peer else None
    line = {"benchmark": "inference", **measure.machine("tensorflow", "keras")}
    config = load_config(arguments.config, arguments.set)
    model = build_busy_model(config.model, image)
    predictors = {
        name: Predictor(
            model, numbered_categories(config.model), config.merge, config.data.validation, **only
        )
        for name, only in (("whole", {}), ("panoptic only", {"panoptic_only": True}))
    }
    stages = measure.Stages()
    parts = Parts(predictors["whole"], image)
    for round_ in range(arguments.rounds + 1):
        clock = stages if round_ else measure.Stages()  # the first is tracing
        found = parts.run(clock.run)
        thresholds = predictors["whole"].thresholds._replace(score_threshold=found["merged_score"])
        for name, predictor in predictors.items():
            measure.forget_peak_memory()
            clock.run(name, predictor.traced, image[None], thresholds)
            line[f"peak_mb_{name.replace(' ', '_')}"] = measure.peak_memory()
        line |= {"config": arguments.config, "image": [*image.shape[:2]], **found}
        if run_peer:
            clock.run("peer: torchvision", run_peer)
    costs = count_costs(model, image.shape[:2])
    counts = {stage: cost.multiply_adds for stage, cost in costs.items()}
    line |= shares(stages.medians())
    measure.report(line, stages, multiply_adds(counts))


class Parts:
    """The stages of a `Predictor`, each a graph of its own."""

    def __init__(self, predictor, image):
        self.tasks = predictor.tasks
        self.image = image
        model, size = predictor.model, tf.shape(image)[:2]
        network_size = predictor.network_size(size)
        sizes = network_size[None]
        functions = {
            "resize": lambda image: predictor.resize(image[None], network_size),
            "backbone": lambda x: model.backbone(model.normalize(x, sizes)[0], training=False),
            "fpn": lambda x: branch_features(model.fpn(x), model.config["fpn_groups"]),
            "rpn_head": lambda features: model.rpn_head(features),
            "proposals": lambda features, *x: model.proposals(features, *x, sizes)[:2],
            "box_head": lambda features, rois, scores: model.detect(features, rois, scores, sizes),
            "mask_head": lambda features, *x: tf.sigmoid(model.mask_head(features, *x)),
            "semantic_head": lambda features: model.semantic_head(features),
            "class map": lambda logits: semantic_map(logits[0], network_size, size),
            "merge": lambda *x: merge_outputs(*x[:2], predictor.categories, x[2]),
        }
        self.functions = {
            name: tf.function(function, autograph=False) for name, function in functions.items()
        }

    def run(self, run):
        """Passes the image through; returns what it finds.

        Args:
            run: `Stages.run`.
        """

        def stage(name, *inputs):
            return run(name, self.functions[name], *inputs)

        features, semantic = stage("fpn", stage("backbone", stage("resize", self.image)))
        found = {"detections": 0, "merged_score": 0.5}
        if "instance" in self.tasks:
            rois, roi_scores = stage("proposals", features, *stage("rpn_head", features))
            boxes, scores, classes, count = stage("box_head", features, rois, roi_scores)
            features = {name: features[name] for name in ROI_LEVELS}
            masks = stage("mask_head", features, boxes, classes, count)
            found["proposals"] = int(tf.math.count_nonzero(roi_scores > float("-inf")))
            found["detections"] = int(count[0])
            found["merged_score"] = merged_score(scores[0])
        if "semantic" in self.tasks:
            labels = stage("class map", stage("semantic_head", semantic))
        if len(self.tasks) == 2:
            names = (schema.BOXES, schema.SCORES, schema.CLASSES, schema.MASK_PROBS)
            values = (boxes[0], scores[0], classes[0], masks[0])
            thresholds = Thresholds(*map(tf.constant, (found["merged_score"], 0.5, 4096, 100)))
            merged = stage("merge", dict(zip(names, values, strict=True)), labels, thresholds)
            found["segments"] = int(merged[schema.NUM_SEGMENTS])
        return found


def multiply_adds(costs):
    """Of the benchmark's stages, from those of `count_costs`."""
    backbone = sum(n for name, n in costs.items() if name == "stem" or name.startswith("res"))
    heads = ("fpn", "rpn_head", "box_head", "mask_head", "semantic_head")
    counts = {name: costs[name] for name in heads if name in costs}
    return {"backbone": backbone, **counts, "whole": costs[WHOLE]}


def shares(stages):
    """Of the whole: what a network of its own would take, and the merge."""
    whole = stages["whole"]
    dense = sum(stages[name]["wall"] for name in ("backbone", "fpn"))
    figures = {"seconds": whole["wall"], "processor_seconds": whole["cpu"]}
    return {**figures, "dense_share": dense / whole["wall"]}


def torchvision_peer(image):
    """A function that runs torchvision's Mask R-CNN R-50 on the image.

    Raises:
        ConfigError: if torchvision is not installed.
    """
    try:
        import torch
        from torchvision.models.detection import maskrcnn_resnet50_fpn
    except (ImportError, RuntimeError):  # the second, of a build for another PyTorch
        command = PEERS["torchvision"]
        raise ConfigError(
            f"--peer=torchvision is not installed, or not for this PyTorch: {command}"
        ) from None
    height, width = image.shape[:2]
    # Every class of every proposal is above 0: as many detections as it may have.
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=min(height, width),
        max_size=max(height, width),
        box_score_thresh=0.0,
    ).eval()
    pixels = torch.tensor(image.numpy()).permute(2, 0, 1) / 255

    def run():
        with torch.no_grad():
            return model([pixels])

    return run


if __name__ == "__main__":
    exit_on_error(main)
