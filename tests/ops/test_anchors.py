import numpy as np
from keras import ops

from tf_panoptic_fpn.ops.anchors import pyramid_anchors

RATIOS = (0.5, 1.0, 2.0)


def test_two_cells_by_hand():
    anchors = ops.convert_to_numpy(pyramid_anchors([(1, 2)], [16], [32.0], RATIOS))
    # Half sides: sqrt(32 * 32 / ratio) / 2 wide, ratio times that high.
    wide, narrow = 32 * 2**0.5 / 2, 32 / 2**0.5 / 2
    cell = np.array(
        [[-narrow, -wide, narrow, wide], [-16, -16, 16, 16], [-wide, -narrow, wide, narrow]]
    )
    expected = np.concatenate([cell, cell + np.array([0, 16, 0, 16])])
    np.testing.assert_allclose(anchors, expected, atol=1e-5)
    assert anchors.dtype == "float32"


def test_levels_follow_each_other_in_rows():
    anchors = ops.convert_to_numpy(pyramid_anchors([(2, 3), (1, 1)], [4, 8], [8.0, 16.0], (1.0,)))
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [[0, 0], [0, 4], [0, 8], [4, 0], [4, 4], [4, 8], [0, 0]]
    np.testing.assert_array_equal(centers, expected)
    np.testing.assert_array_equal(anchors[:, 2] - anchors[:, 0], [8] * 6 + [16])


def test_golden(goldens_dir):
    golden = np.load(goldens_dir / "infer_a.npz")
    levels = [golden[f"anchors_p{level}"] for level in range(2, 7)]
    sizes = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]  # of a 128 x 160 image
    anchors = pyramid_anchors(sizes, [4, 8, 16, 32, 64], [32.0, 64.0, 128.0, 256.0, 512.0], RATIOS)
    expected = np.concatenate(levels)[:, [1, 0, 3, 2]]
    np.testing.assert_array_equal(ops.convert_to_numpy(anchors), expected)


def test_unknown_sizes_in_a_graph(tf):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None]), tf.TensorSpec([2], "int32")])
    def anchors(feature, size):
        shape = tf.shape(feature)
        return pyramid_anchors(
            [(shape[1], shape[2]), (size[0], size[1])], [4, 8], [32.0, 64.0], RATIOS
        )

    expected = ops.convert_to_numpy(pyramid_anchors([(5, 7), (3, 4)], [4, 8], [32.0, 64.0], RATIOS))
    np.testing.assert_array_equal(anchors(tf.zeros([1, 5, 7]), tf.constant([3, 4])), expected)
