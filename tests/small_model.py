"""Helpers for tests that use the goldens' small Panoptic FPN."""

import unittest.mock

import keras
import numpy as np

from tf_panoptic_fpn import PanopticFPN, schema
from tf_panoptic_fpn.backbones import resnet
from tf_panoptic_fpn.backbones.resnet import ResNet

XY = [1, 0, 3, 2]  # xyxy <-> yxyx
DETECTRON2_LOSSES = {  # ours: theirs
    "rpn_class": "loss_rpn_cls",
    "rpn_box": "loss_rpn_loc",
    "class": "loss_cls",
    "box": "loss_box_reg",
    "mask": "loss_mask",
    "semantic": "loss_sem_seg",
    "total": "loss_total",
}


def stack_images(golden):
    """The images of a golden as one RGB batch: float32 `[B, 128, 160, 3]` and sizes `[B, 2]`."""
    count = sum(key.startswith("image_") for key in golden)
    batch, sizes = np.zeros((count, 128, 160, 3), np.float32), np.zeros((count, 2), np.int32)
    for i in range(count):
        image = golden[f"image_{i}"][..., ::-1]
        sizes[i] = image.shape[:2]
        batch[i, : sizes[i, 0], : sizes[i, 1]] = image
    return batch, sizes


def stack_semantic(golden, sizes):
    """The semantic ground truth of a golden: int32 `[2, 128, 160]`, 255 where there is none."""
    semantic = np.full((2, 128, 160), schema.IGNORED, np.int32)
    for i, (height, width) in enumerate(sizes):
        semantic[i, :height, :width] = golden[f"sem_seg_{i}"]
    return semantic


def make_small_model(**changes):
    """detectron2's `panoptic_fpn_R_50_1x` at 1/16 width, untrained."""
    options = {
        "num_thing_classes": 5,
        "num_stuff_classes": 4,
        "backbone": ResNet(50, stem_channels=8, width=4, name="backbone"),
        "fpn_channels": 16,
        "semantic_channels": 64,
        "box_head_units": 64,
        "mask_head_channels": 16,
        "rpn_top_k_train": (2000, 1000),
        "rpn_top_k_test": (500, 200),
        "max_detections": 40,
    }
    return PanopticFPN(**{**options, **changes})


CASCADE_OPTIONS = {
    "num_thing_classes": 5,
    "num_stuff_classes": 4,
    "norm_groups": 8,
    "fpn_channels": 16,
    "fpn_norm": "group_norm",
    "semantic_channels": 32,
    "box_head_units": 64,
    "class_agnostic_boxes": True,
    "cascade_ious": (0.5, 0.6, 0.7),
    "mask_head_channels": 16,
    "mask_head_norm": "group_norm",
    "rpn_top_k_train": (2000, 2000),
    "rpn_top_k_test": (500, 200),
    "max_detections": 40,
}


def make_cascade_model(**changes):
    """detectron2's `panoptic_fpn_R_101_dconv_cascade_gn_3x` at R-50 and 1/8 width, untrained."""
    backbone = ResNet(
        50,
        "group_norm",
        stride_in_1x1=False,
        stem_channels=16,
        width=8,
        norm_groups=8,
        deformable_stages=(3, 4, 5),
        name="backbone",
    )
    return PanopticFPN(**{"backbone": backbone, **CASCADE_OPTIONS, **changes})


def make_batch(batch_size=4, size=(96, 128), num_instances=3, seed=0):
    """A training batch of noise, with elliptic instances and four stuff bands, in the schema."""
    rng = np.random.default_rng(seed)
    height, width = size
    centers = rng.uniform(0.3, 0.7, (batch_size, num_instances, 2)) * size
    halves = rng.uniform(8, 28, (batch_size, num_instances, 2))
    boxes = np.concatenate([centers - halves, centers + halves], axis=-1)
    grid = np.linspace(-1, 1, schema.GT_MASK_SIZE)
    ellipse = (grid[:, None] ** 2 + grid**2 <= 1).astype(np.uint8)
    bands = 1 + np.arange(height) * 4 // height
    semantic = np.broadcast_to(bands[:, None], size)
    return {
        schema.IMAGES: rng.uniform(0, 255, (batch_size, *size, 3)).astype(np.float32),
        schema.IMAGE_SIZES: np.tile(np.int32(size), (batch_size, 1)),
        schema.IMAGE_SEEDS: rng.integers(0, 2**30, batch_size).astype(np.int32),
        schema.GT_BOXES: np.clip(boxes, 0, [height, width] * 2).astype(np.float32),
        schema.GT_CLASSES: rng.integers(0, 5, (batch_size, num_instances)).astype(np.int32),
        schema.GT_IS_CROWD: np.zeros((batch_size, num_instances), bool),
        schema.GT_MASKS: np.broadcast_to(
            ellipse, (batch_size, num_instances, *ellipse.shape)
        ).copy(),
        schema.SEMANTIC: np.tile(semantic, (batch_size, 1, 1)).astype(np.int32),
    }


TINY_OPTIONS = {
    "num_thing_classes": 5,
    "num_stuff_classes": 4,
    "fpn_channels": 32,
    "semantic_channels": 32,
    "box_head_units": 32,
    "mask_head_channels": 16,
    "rpn_top_k_train": (50, 40),
    "rpn_top_k_test": (50, 20),
    "rpn_samples": 32,
    "rois_per_image": 16,
    "max_detections": 7,
    "score_threshold": 0.0,
}


# Arguments of KerasHub's classes.
TINY_MIT = {
    "num_layers": 4,
    "hidden_dims": [8, 8, 8, 8],
    "layerwise_depths": [1, 1, 1, 1],
    "layerwise_num_heads": [1, 2, 2, 2],
    "layerwise_sr_ratios": [2, 2, 2, 1],
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
}
# Of maps of 16 x 24, 8 x 12, 4 x 6 and 2 x 3: padded windows, shifted ones on the second.
TINY_SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 5}


def make_tiny_model(**changes):
    """An untrained ResNet-18 Panoptic FPN with group norm, always the same weights."""
    keras.utils.set_random_seed(1)
    backbone = ResNet(18, "group_norm", 0, stem_channels=32, width=32, name="backbone")
    return PanopticFPN(**{"backbone": backbone, **TINY_OPTIONS, **changes})


def short_resnets():
    """Inside, a ResNet-18 or 50 has one block a stage, which traces in a fraction of the time."""
    return unittest.mock.patch.dict(resnet.BLOCKS, dict.fromkeys((18, 50), (1, 1, 1, 1)))


def make_tiny_cascade(**changes):
    """An untrained cascade with group norm in every part and a deformable res5."""
    keras.utils.set_random_seed(1)
    with short_resnets():
        backbone = ResNet(
            50,
            "group_norm",
            freeze_at=0,
            stride_in_1x1=False,
            stem_channels=8,
            width=4,
            norm_groups=4,
            deformable_stages=(5,),
            name="backbone",
        )
    norms = dict.fromkeys(("fpn_norm", "mask_head_norm"), "group_norm")
    cascade = {"class_agnostic_boxes": True, "cascade_ious": (0.5, 0.6, 0.7), "norm_groups": 4}
    options = {**TINY_OPTIONS, "backbone": backbone, "fpn_channels": 16, **norms, **cascade}
    return PanopticFPN(**{**options, **changes})
