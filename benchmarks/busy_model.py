"""An untrained model that finds as much in an image as a trained one finds in a full street."""

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import build_model, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.assembly import ROI_LEVELS

# Standard deviations that the outputs of the layers get: of logits and of deltas.
OBJECTNESS, RPN_DELTAS, CLASSES, BOX_DELTAS = 2.0, 0.2, 3.0, 0.5
MERGED = 0.54  # of the detections: the merge is to use so many


def build_busy_model(config, image):
    """Builds a model from a seed and scales its heads, so that the image is full of detections.

    Args:
        config: `ModelConfig`.
        image: uint8 `[H, W, 3]`.
    """
    keras.utils.set_random_seed(0)
    model = build_model(config)
    if model.box_head is None:
        return model
    dense = model.dense_outputs(image[None], training=False)
    features, sizes = dense["features"], dense["image_sizes"]
    _scale(model.rpn_head.objectness, tf.concat(dense["rpn_logits"], 1), OBJECTNESS)
    _scale(model.rpn_head.deltas, tf.concat(dense["rpn_deltas"], 1), RPN_DELTAS)
    rois, _, _ = model.proposals(features, *model.rpn_head(features), sizes)
    features = {name: features[name] for name in ROI_LEVELS}
    heads = getattr(model.box_head, "stages", [model.box_head])
    for stage, head in enumerate(heads):
        logits, deltas = head(features, rois)
        _scale(head.classes, logits, CLASSES)
        deltas = _scale(head.deltas, deltas, BOX_DELTAS)
        if stage < len(heads) - 1:
            rois = model.box_head.moved(stage, rois, deltas, sizes)
    return model


def _scale(layer, outputs, deviation):
    """Scales a layer without bias; returns its outputs, scaled."""
    factor = deviation / tf.math.reduce_std(outputs)
    layer.kernel.assign(layer.kernel * factor)
    return outputs * factor


def merged_score(scores):
    """The score that the merge has to ask for, to use its share of an image's detections."""
    return float(scores[max(round(MERGED * len(scores)) - 1, 0)])


def numbered_categories(config):
    things, stuff = config.num_thing_classes, config.num_stuff_classes
    return CategoryTable(tuple(Category(i + 1, str(i), i < things) for i in range(things + stuff)))


def make_image(height, width):
    """Colours that change slowly, under noise: uint8 `[H, W, 3]`.

    Raises:
        ConfigError: if a side is not positive.
    """
    if min(height, width) < 1:
        raise ConfigError(f"--height and --width must be positive. Received: {height}, {width}")
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (1, 12, 16, 3)).astype(np.float32)
    image = tf.image.resize(coarse, (height, width))[0]
    noise = rng.integers(-12, 12, (height, width, 1), np.int8)
    return tf.cast(tf.clip_by_value(image + tf.cast(noise, tf.float32), 0, 255), tf.uint8)


def busy_batch(model, image, config, num_instances):
    """A batch of the image with ground truth where an untrained model looks for it.

    Args:
        model: of `build_busy_model`.
        image: uint8 `[H, W, 3]`.
        config: `Config`.
        num_instances: int, boxes of ground truth, some of the model's own proposals.

    Returns:
        Dict of `schema`, as of the training pipeline, padded to `data.max_instances`.
    """
    rng = np.random.default_rng(0)
    size = np.array([image.shape[:2]], np.int32)
    dense = model.dense_outputs(image[None], training=True)
    outputs = dense["features"], dense["rpn_logits"], dense["rpn_deltas"], dense["image_sizes"]
    rois, scores, _ = model.proposals(*outputs, training=True)
    found = rois[0][scores[0] > float("-inf")].numpy()
    length = config.data.max_instances
    boxes = rng.permutation(found)[: min(num_instances, length)]  # may be fewer
    padding = length - len(boxes)
    classes = rng.integers(0, config.model.num_thing_classes, len(boxes), np.int32)
    masks = rng.integers(0, 2, (len(boxes), 7, 7), np.uint8)
    masks = masks.repeat(schema.GT_MASK_SIZE // 7, 1).repeat(schema.GT_MASK_SIZE // 7, 2)
    semantic = rng.integers(0, config.model.num_stuff_classes + 1, (8, 8), np.int32)
    rows, columns = (np.arange(side) * 8 // side for side in image.shape[:2])
    return {
        schema.IMAGES: tf.cast(image[None], tf.float32),
        schema.IMAGE_SIZES: tf.constant(size),
        schema.IMAGE_SEEDS: tf.zeros([1], tf.int32),
        schema.GT_BOXES: tf.constant(np.pad(boxes, [[0, padding], [0, 0]])[None]),
        schema.GT_CLASSES: tf.constant(np.pad(classes, [0, padding], constant_values=-1)[None]),
        schema.GT_IS_CROWD: tf.zeros([1, length], tf.bool),
        schema.GT_MASKS: tf.constant(np.pad(masks, [[0, padding], [0, 0], [0, 0]])[None]),
        schema.SEMANTIC: tf.constant(semantic[rows][:, columns][None]),
    }
