"""The losses."""

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.models import losses
from tf_panoptic_fpn.ops.resize import upsample_bilinear


@pytest.mark.parametrize("size", [(1, 3), (8, 2), (19, 3)])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
def test_the_semantic_loss_by_strips_is_that_of_all_at_once(size, weights):
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=(2, *size, 3)))
    sides = 4 * size[0] - 2, 4 * size[1] - 1  # the canvas is padded
    semantic = tf.constant(rng.integers(-1, 4, (2, *sides)), tf.int32)  # 3 is no class
    received, expected = [], []
    for rows, function in (
        (received, losses.upsampled_semantic_loss),
        (expected, lambda x, *y: losses.semantic_loss(upsample_bilinear(x, 4), *y)),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total, count = function(logits, semantic, weights)["semantic"]
            loss = 3 * total / tf.stop_gradient(count)
        rows += [total, count, tape.gradient(loss, logits)]
    for value, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-12, atol=1e-14)
