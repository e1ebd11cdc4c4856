"""Every dict that crosses a border of the package: key, shape, dtype, meaning.

B batch; H, W canvas; H0, W0 original image; N padded ground-truth boxes; D detections; K thing
classes; S semantic classes (0 = `other`, then stuff); M = D + S - 1 segments. Boxes are yxyx,
float32, absolute pixels, continuous in [0, H] x [0, W].
"""

from typing import Any

# A tensor of `keras.ops`: of TensorFlow, JAX or PyTorch, a variable or a KerasTensor, which have no
# type in common that could be checked.
Tensor = Any
Tensors = dict[str, Tensor]
Shape = tuple[Any, ...]  # ints, or None where a side is not known

# Caller -> model.
IMAGES = (
    "images"  # float32 (or uint8) [B, H, W, 3], RGB 0-255; anything outside the image is padding
)
IMAGE_SIZES = "image_sizes"  # int32 [B, 2], (H, W) of the valid top-left part of the canvas

# Pipeline -> train step, beside the two above.
IMAGE_SEEDS = "image_seeds"  # int32 [B], seeds the sampling of anchors and rois of the image
GT_BOXES = "gt_boxes"  # float32 [B, N, 4], canvas pixels; zeros are padding
GT_CLASSES = "gt_classes"  # int32 [B, N], thing class; -1 is padding
GT_IS_CROWD = "gt_is_crowd"  # bool [B, N]
GT_MASKS = "gt_masks"  # uint8 [B, N, 112, 112], 0 or 1, each in the frame of its own box
SEMANTIC = "semantic"  # int32 [B, H, W], 0 things, 1..S-1 stuff; -1, as any other, is ignored

GT_MASK_SIZE = 112
IGNORED = -1
VOID_LABEL = 255  # of most label maps, unless it is a class

# Model -> caller.
BOXES = "boxes"  # float32 [B, D, 4], canvas pixels, by descending score; zeros are padding
SCORES = "scores"  # float32 [B, D]; 0 is padding
CLASSES = "classes"  # int32 [B, D], thing class; -1 is padding
NUM_DETECTIONS = "num_detections"  # int32 [B]
MASK_PROBS = "mask_probs"  # float32 [B, D, 28, 28], in the frame of the box
SEMANTIC_LOGITS = "semantic_logits"  # float32 [B, H/4, W/4, S], H, W rounded up to 32

# Merge -> caller, one image: the map, then one row a segment; `num_segments` rows are valid. SCORES
# (float32 [M]; 1 for stuff, 0 is padding) and BOXES (float32 [M, 4], tight in the map) come again.
PANOPTIC_MAP = "panoptic_map"  # int32 [H0, W0]; 0 void, ids 1..num_segments
CATEGORY_IDS = "category_ids"  # int64 [M], dataset ids; -1 is padding
IS_THING = "is_thing"  # bool [M]
AREAS = "areas"  # int32 [M], pixels of the panoptic map
NUM_SEGMENTS = "num_segments"  # int32 []

# Predictor -> caller, beside the keys of the merge.
SEMANTIC_MAP = "semantic_map"  # int32 [H0, W0], semantic class of each pixel
INSTANCES = "instances"  # dict of BOXES, SCORES, CLASSES, MASK_PROBS, NUM_DETECTIONS as above, with
# boxes in pixels of the original image
