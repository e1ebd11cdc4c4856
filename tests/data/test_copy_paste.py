import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.copy_paste import keep_largest, paste


def _sample(size, boxes, semantic, value):
    count = len(boxes)
    return {
        schema.IMAGES: tf.fill([*size, 3], tf.constant(value, tf.uint8)),
        schema.SEMANTIC: tf.fill(size, tf.constant(semantic, tf.uint8)),
        schema.GT_BOXES: tf.reshape(tf.constant(boxes, tf.float32), [count, 4]),
        schema.GT_MASKS: tf.ones([count, 112, 112], tf.uint8),
        schema.GT_CLASSES: tf.range(count) + 10 * semantic,
        schema.GT_IS_CROWD: tf.range(count) == 1,
    }


def test_paste_by_hand():
    """A pasted square hides half of one box, all of a second, and nothing of a third, a crowd."""
    base = _sample((28, 56), [[0, 0, 28, 14], [0, 28, 28, 56], [2, 2, 6, 6]], 1, 10)
    pasted = _sample((20, 30), [[0, 0, 14, 14]], 2, 200)
    covered = np.zeros((20, 30), bool)
    covered[:14, :14] = True
    merged = paste(base, pasted, tf.constant(covered), 100)
    merged = {key: value.numpy() for key, value in merged.items()}
    expected = np.zeros((28, 56), bool)
    expected[:14, :14] = True
    np.testing.assert_array_equal(merged["images"][..., 0], np.where(expected, 200, 10))
    np.testing.assert_array_equal(merged["semantic"], np.where(expected, 2, 1))
    assert merged["gt_boxes"].tolist() == [[14, 0, 28, 14], [0, 28, 28, 56], [0, 0, 14, 14]]
    assert merged["gt_masks"].min() == 1
    assert merged["gt_classes"].tolist() == [10, 11, 20]
    assert merged["gt_is_crowd"].tolist() == [False, True, False]
    largest = paste(base, pasted, tf.constant(covered), 2)
    # Areas 196, 784 and 196: of the two alike, the first.
    assert largest["gt_classes"].numpy().tolist() == [10, 11]


def test_a_hole_leaves_the_box():
    base = _sample((112, 112), [[0, 0, 112, 112]], 1, 10)
    covered = np.zeros((112, 112), bool)
    covered[30:60, 40:50] = True
    merged = paste(base, _sample((112, 112), [], 2, 0), tf.constant(covered), 100)
    assert merged["gt_boxes"].numpy().tolist() == [[0, 0, 112, 112]]
    np.testing.assert_array_equal(merged["gt_masks"][0], ~covered)


def test_keep_largest():
    areas = tf.constant([5, 0, 9, 5, 7])
    assert keep_largest(areas, 10).numpy().tolist() == [0, 2, 3, 4]
    assert keep_largest(areas, 3).numpy().tolist() == [0, 2, 4]
    assert keep_largest(tf.zeros([0]), 3).shape == (0,)
