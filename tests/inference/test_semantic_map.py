"""The semantic map in tiles, against logits that are resized as a whole."""

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.inference import semantic_map as module
from tf_panoptic_fpn.inference.merge import balance_classes
from tf_panoptic_fpn.inference.semantic_map import resized_logits, semantic_map
from tf_panoptic_fpn.ops.canvas import RUN

SHARES = [0.3, 0.0, 0.1, 0.2, 0.1, 0.3]


@pytest.fixture(scope="module")
def both():
    """(in tiles, as a whole) of logits, as one graph for all sizes."""

    def run(logits, size, original, class_shares):
        whole = resized_logits(logits, size, original)
        if class_shares is not None:
            whole = balance_classes(whole, class_shares)
        tiled = semantic_map(logits, size, original, class_shares)
        return tiled, tf.argmax(whole, axis=-1, output_type=tf.int32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE", RUN)
        graphs = {}
        for shares in (None, SHARES):
            graphs[shares is None] = tf.function(
                lambda *inputs, shares=shares: run(*inputs, shares),
                [tf.TensorSpec([None, None, 6]), *[tf.TensorSpec([2], tf.int32)] * 2],
                autograph=False,
            )
            graphs[shares is None].get_concrete_function()
        yield graphs


# Enlarged and reduced, in one tile and in many, with a rest of every kind, and padding cut off.
@pytest.mark.parametrize(
    "grid, size, original",
    [
        ((16, 24), (64, 96), (150, 200)),
        ((16, 24), (50, 75), (333, 129)),
        ((24, 32), (96, 127), (64, 128)),
        ((24, 32), (90, 120), (31, 40)),
        ((8, 8), (1, 32), (3, 97)),
        ((8, 8), (32, 32), (1, 1)),
        ((1, 1), (4, 4), (70, 5)),
        ((16, 16), (64, 64), (64, 64)),
    ],
)
@pytest.mark.parametrize("is_plain", [True, False])
def test_tiles_equal_the_whole(both, grid, size, original, is_plain):
    rng = np.random.default_rng(sum(original))
    for scale in (1.0, 1e-3, 30.0):
        logits = rng.normal(0, scale, (*grid, 6)).astype(np.float32)
        # Large areas of one class, where others are left out; and values that are equal.
        logits[:, : grid[1] // 2] = logits[:1, :1]
        logits[..., 5] = np.maximum(logits[..., 5], logits[..., 4])
        tiled, whole = both[is_plain](logits, tf.constant(size), tf.constant(original))
        assert tiled.dtype == tf.int32
        np.testing.assert_array_equal(tiled, whole)
    assert len(np.unique(whole)) > 1 or 1 in (*grid, *original)


def test_classes_that_cannot_win_are_left_out():
    logits = np.zeros((3, 8, 4), np.float32)
    logits[..., 1] = 2.0  # everywhere above class 0
    logits[0, 0, 2] = 3.0  # wins in a corner, and can as far as its neighbours reach
    logits[..., 3] = 2.0  # equal to class 1
    can_win = module._can_win(tf.constant(logits)).numpy()
    assert can_win.all(0).any(0).tolist() == [False, True, False, True]
    assert np.argwhere(can_win[..., 2]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
