import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tf_panoptic_fpn.ops.boxes import (
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_iou,
    scale_boxes,
)

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# Golden columns (x, y) to ours (y, x), of boxes as well as of deltas.
SWAP = [1, 0, 3, 2]


def run(function, *arguments):
    """Calls with tensors for arrays, and returns arrays."""
    tensors = [ops.convert_to_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    return ops.convert_to_numpy(function(*tensors))


def test_areas():
    boxes = np.array([[1, 2, 4, 7], [0, 0, 0, 5], [3, 3, 2, 5]], "float32")
    np.testing.assert_array_equal(run(box_areas, boxes), [15, 0, 0])


def test_iou_by_hand():
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], "float32")
    b = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [20, 20, 30, 30], [5, 5, 5, 9]], "float32")
    expected = [[1, 50 / 150, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(run(pairwise_iou, a, b), expected, rtol=1e-6)


def test_iou_of_golden(units):
    iou = run(pairwise_iou, units["matcher_gt"][:, SWAP], units["matcher_boxes"][:, SWAP])
    np.testing.assert_allclose(iou, units["matcher_iou"], atol=1e-7)


def test_iou_broadcasts_over_the_batch():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (3, 5, 2))
    a = np.concatenate([corner, corner + rng.uniform(1, 20, (3, 5, 2))], -1).astype("float32")
    b = a[1]
    iou = run(pairwise_iou, a, b)
    assert iou.shape == (3, 5, 5)
    for i in range(3):
        np.testing.assert_allclose(iou[i], run(pairwise_iou, a[i], b), atol=1e-7)
    np.testing.assert_allclose(iou[1], iou[1].T, atol=1e-7)


def test_clip_each_image_to_its_own_size():
    boxes = np.array([[[-5, -1, 50, 60]], [[-5, 12, 50, 60]]], "float32")
    sizes = np.array([[40, 30], [60, 10]], "int32")
    expected = [[[0, 0, 40, 30]], [[0, 10, 50, 10]]]
    np.testing.assert_array_equal(run(clip_boxes, boxes, sizes), expected)
    np.testing.assert_array_equal(run(clip_boxes, boxes[0], sizes[0]), expected[0])


def test_scale_y_and_x():
    boxes = np.array([[[1, 2, 3, 4]], [[1, 2, 3, 4]]], "float32")
    scales = np.array([[2, 10], [0.5, 1]], "float32")
    expected = [[[2, 20, 6, 40]], [[0.5, 2, 1.5, 4]]]
    np.testing.assert_allclose(run(scale_boxes, boxes, scales), expected)
    np.testing.assert_allclose(run(scale_boxes, boxes[0], scales[0]), expected[0])


def test_encode_by_hand():
    reference = np.array([[0, 0, 10, 20]], "float32")
    boxes = np.array([[5, 0, 25, 10]], "float32")  # centre (15, 5), size (20, 10)
    expected = [[10 * (15 - 5) / 10, 10 * (5 - 10) / 20, 5 * math.log(2), 5 * math.log(0.5)]]
    np.testing.assert_allclose(
        run(encode_boxes, boxes, reference, HEAD_WEIGHTS), expected, rtol=1e-6
    )


@pytest.mark.parametrize("weights, name", [(RPN_WEIGHTS, "1111"), (HEAD_WEIGHTS, "101055")])
def test_deltas_of_golden(units, weights, name):
    reference = units["deltas_src"][:, SWAP]
    deltas = run(encode_boxes, units["deltas_tgt"][:, SWAP], reference, weights)
    np.testing.assert_allclose(deltas, units[f"deltas_{name}"][:, SWAP], rtol=1e-6, atol=1e-5)
    # Two boxes a reference, some of them past the clamp; coordinates up to 2400.
    given_deltas = units[f"apply_in_{name}"].reshape(-1, 2, 4)[..., SWAP]
    expected = units[f"apply_out_{name}"].reshape(-1, 2, 4)[..., SWAP]
    boxes = run(decode_boxes, given_deltas, reference[:, None], weights)
    np.testing.assert_allclose(boxes, expected, rtol=1e-6, atol=2e-4)


def test_decode_clamps_the_size():
    reference = np.array([[0, 0, 16, 16]], "float32")
    deltas = np.array([[0, 0, 50, -50]], "float32")
    boxes = run(decode_boxes, deltas, reference, RPN_WEIGHTS)
    np.testing.assert_allclose(boxes, [[8 - 500, 8, 8 + 500, 8]], rtol=1e-5)


def test_degenerate_boxes_encode_to_finite_deltas():
    boxes = np.array([[0, 0, 0, 0], [5, 5, 5, 9], [0, 0, 8, 8]], "float32")
    deltas = run(encode_boxes, boxes[:, None], boxes[None], HEAD_WEIGHTS)
    assert np.isfinite(deltas).all()
    np.testing.assert_array_equal(deltas[2, 2], 0)


coordinate = st.floats(0, 1000, width=32)
side = st.floats(1, 500, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(
    lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]], "float32")
)


@settings(max_examples=60, deadline=None)
@given(boxes=box, reference=box, weights=st.sampled_from([RPN_WEIGHTS, HEAD_WEIGHTS]))
def test_decode_undoes_encode(boxes, reference, weights):
    # Sides of 1..500: a ratio above 1000/16 is clamped, and does not come back.
    ratio = (boxes[2:] - boxes[:2]) / (reference[2:] - reference[:2])
    if ratio.max() > 62:
        return
    back = run(decode_boxes, run(encode_boxes, boxes, reference, weights), reference, weights)
    np.testing.assert_allclose(back, boxes, atol=5e-3)
