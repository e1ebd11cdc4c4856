"""A SavedModel that looks at colours, written in a second."""

import tensorflow as tf

from tf_panoptic_fpn.categories import Category, CategoryTable

TABLE = CategoryTable((Category(7, "cat", True), Category(40, "sky", False)))


def by_color(images):
    """Stuff where red is below 128, a thing elsewhere; its score is the mean of green."""
    batch, area = tf.shape(images)[0], tf.size(images[0, :, :, 0])
    ids = tf.where(images[..., 0] < 128, 1, 2)
    things = tf.reduce_sum(ids - 1, [1, 2])
    green = tf.reduce_sum(tf.cast(images[..., 1], tf.int32), [1, 2])  # exact in any order
    score = tf.cast(green, tf.float32) / tf.cast(255 * area, tf.float32)
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    box = tf.tile([[0.0, 0.0, size[0], size[1]]], [batch, 1])
    column = tf.ones([batch, 1], tf.int64)
    return {
        "panoptic_map": ids,
        "category_ids": tf.concat([column * 40, column * 7], 1),
        "is_thing": tf.tile([[False, True]], [batch, 1]),
        "scores": tf.stack([tf.ones_like(score), score], 1),
        "areas": tf.stack([area - things, things], 1),
        "boxes": tf.stack([box, box], 1),
        "num_segments": tf.fill([batch], 2),
        "semantic_map": ids - 1,
        "detection_boxes": box[:, None],
        "detection_scores": score[:, None],
        "detection_category_ids": column * 7,
        "detection_mask_probs": tf.ones([batch, 1, 28, 28]),
        "num_detections": tf.ones([batch], tf.int32),
    }


def write_color_model(folder):
    """Writes the SavedModel, with the signature `tensor`, and its categories."""
    module = tf.Module()
    spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    module.serve = tf.function(by_color, input_signature=[spec])
    tf.saved_model.save(module, str(folder), {"tensor": module.serve})
    TABLE.save(folder / "assets/categories.json")
