"""A predictor as one ONNX file: images in, panoptic segmentation out."""

from typing import Any

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.backbones.backbone import Backbone
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.backbones.vision_transformer import VisionTransformer
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.models.mask_head import MASK_SIZE
from tf_panoptic_fpn.models.panoptic_fpn import ROI_LEVELS, PanopticFPN
from tf_panoptic_fpn.onnx_graph import layers
from tf_panoptic_fpn.onnx_graph.graph import Graph, Value
from tf_panoptic_fpn.onnx_graph.instances import box_head, detections, mask_head, proposals
from tf_panoptic_fpn.onnx_graph.merge import Merge, network_size, resize_image, semantic_map
from tf_panoptic_fpn.onnx_graph.network import network
from tf_panoptic_fpn.onnx_graph.vision_transformer import vision_transformer


def build_graph(predictor: Predictor) -> Graph:
    """Writes a predictor's graph."""
    g = Graph()
    model, config = predictor.model, predictor.model.config
    images = g.input("images", "uint8", ["batch", "height", "width", 3])
    merge = predictor.merge
    thresholds = (
        g.input("score_threshold", "float32", [], merge.score_threshold),
        g.input("overlap_threshold", "float32", [], merge.overlap_threshold),
        g.input("stuff_area", "int32", [], merge.stuff_area),
    )
    original = g.op("Shape", images, start=1, end=3)
    size = network_size(g, original, predictor.short_side, predictor.max_long_side)
    x = layers.normalize(g, resize_image(g, images, size), model.normalize)
    features = layers.pyramid(g, _backbone(g, x, model.backbone), model.fpn)
    features, semantic_features = layers.branches(g, features, config["fpn_groups"])
    batch = g.size(images, 0)
    detections = config["max_detections"]
    if "instance" in config["tasks"]:
        instances = _instances(g, features, size, original, model)
    else:
        instances = _no_instances(g, batch, detections)
    if "semantic" in config["tasks"]:
        logits = layers.semantic_head(g, semantic_features, model.semantic_head)
        classes = model.semantic_head.num_classes
        semantic = semantic_map(g, logits, classes, size, original)
    else:
        semantic = g.op("Expand", np.int32(0), g.concat([batch, original]))
    table = predictor.categories
    stuff = g.op("Max", semantic - np.int32(table.num_semantic_things - 1), np.int32(0))
    merge = Merge(g, table.thing_ids, table.stuff_ids, detections, thresholds)
    merged = merge.batch(instances, stuff)
    _add_outputs(g, merged, semantic, instances, predictor)
    return g


def _backbone(g: Graph, x: Value, backbone: Backbone) -> layers.Features:
    if isinstance(backbone, ResNet):
        return layers.resnet(g, x, backbone)
    if isinstance(backbone, VisionTransformer):
        return vision_transformer(g, x, backbone)
    return network(g, x, backbone)


def _instances(
    g: Graph, features: layers.Features, size: Value, original: Value, model: PanopticFPN
) -> dict[str, Value]:
    """The detections, in pixels of the original image."""
    sides = size.cast("float32")
    logits, deltas = layers.rpn_head(g, features, model.rpn_head)
    rois, scores = proposals(g, features, logits, deltas, sides, model.proposals)
    features = {name: features[name] for name in ROI_LEVELS}
    threshold = model.detections.score_threshold
    probs, deltas = box_head(g, features, rois, scores, model.box_head, threshold)
    boxes, scores, classes = detections(
        g, rois, probs, deltas, sides, model.detections, model.box_head.num_classes
    )
    masks = mask_head(g, features, boxes, classes, model.mask_head)
    limits = original.cast("float32")
    scale = limits / sides
    boxes = g.op("Min", boxes * g.concat([scale, scale]), g.concat([limits, limits]))
    return {
        schema.BOXES: boxes,
        schema.SCORES: scores,
        schema.CLASSES: classes,
        schema.MASK_PROBS: masks,
    }


def _no_instances(g: Graph, batch: Value, count: int) -> dict[str, Value]:
    """`ops.panoptic_merge.no_instances`."""
    return {
        schema.BOXES: g.full(np.float32(0), batch, count, 4),
        schema.SCORES: g.full(np.float32(0), batch, count),
        schema.CLASSES: g.full(np.int64(-1), batch, count),
        schema.MASK_PROBS: g.full(np.float32(0), batch, count, MASK_SIZE, MASK_SIZE),
    }


def _add_outputs(
    g: Graph,
    merged: dict[str, Value],
    semantic: Value,
    instances: dict[str, Value],
    predictor: Predictor,
) -> None:
    detections = predictor.model.config["max_detections"]
    segments = detections + len(predictor.categories.stuff)
    pixels = ["batch", "height", "width"]
    types: dict[str, tuple[str, list[Any]]] = {
        schema.PANOPTIC_MAP: ("int32", pixels),
        schema.CATEGORY_IDS: ("int64", ["batch", segments]),
        schema.IS_THING: ("bool", ["batch", segments]),
        schema.SCORES: ("float32", ["batch", segments]),
        schema.AREAS: ("int32", ["batch", segments]),
        schema.BOXES: ("float32", ["batch", segments, 4]),
        schema.NUM_SEGMENTS: ("int32", ["batch"]),
    }
    for name, (dtype, dims) in types.items():
        g.output(merged[name], name, dtype, dims)
    if "semantic" in predictor.tasks:
        g.output(semantic, schema.SEMANTIC_MAP, "int32", pixels)
    if "instance" in predictor.tasks:
        rows = ["batch", detections]
        classes = instances[schema.CLASSES]
        thing_ids = g.constant(np.array(predictor.categories.thing_ids, np.int64))
        valid = classes >= 0
        category_ids = g.op("Gather", thing_ids, g.op("Max", classes, 0))
        count = g.op("ReduceSum", valid.cast("int32"), [1], keepdims=0)
        masks = instances[schema.MASK_PROBS]
        g.output(g.where(valid, category_ids, -1), "detection_category_ids", "int64", rows)
        g.output(instances[schema.BOXES], "detection_boxes", "float32", [*rows, 4])
        g.output(instances[schema.SCORES], "detection_scores", "float32", rows)
        g.output(masks, "detection_mask_probs", "float32", [*rows, MASK_SIZE, MASK_SIZE])
        g.output(count, schema.NUM_DETECTIONS, "int32", ["batch"])
