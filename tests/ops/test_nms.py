import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tf_panoptic_fpn.ops.boxes import pairwise_iou
from tf_panoptic_fpn.ops.nms import native_nms, nms, portable_nms

INVALID = -np.inf


def numpy_of(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(params=["chosen", "portable", "portable compiled", "native", "native graph"])
def solve(request):
    """One of the implementations, as function of arrays."""
    name = request.param
    if name.startswith("native"):
        tf = request.getfixturevalue("tf")
        function = native_nms if name == "native" else tf.function(native_nms, autograph=False)
    elif name == "portable compiled":
        compiled = request.getfixturevalue("compiled")

        def function(boxes, scores, threshold, groups=None):
            if groups is None:
                return compiled(lambda b, s: portable_nms(b, s, threshold))(boxes, scores)
            return compiled(lambda b, s, g: portable_nms(b, s, threshold, g))(boxes, scores, groups)
    else:
        function = nms if name == "chosen" else portable_nms

    def run(boxes, scores, threshold, groups=None):
        boxes, scores = (ops.convert_to_tensor(x, dtype="float32") for x in (boxes, scores))
        if groups is not None:
            groups = ops.convert_to_tensor(groups, dtype="int32")
        return numpy_of(function(boxes, scores, threshold, groups))

    return run


def greedy(boxes, scores, threshold, groups):
    """The definition, one problem, one box at a time."""
    iou = numpy_of(pairwise_iou(boxes, boxes))
    keep = np.zeros(len(scores), bool)
    for i in np.argsort(-scores, kind="stable"):
        rivals = keep & (groups == groups[i])
        keep[i] = scores[i] > INVALID and not (iou[i][rivals] > threshold).any()
    return keep


@pytest.mark.parametrize("name, threshold", [("nms", 0.5), ("nms", 0.7), ("nms_big", 0.7)])
def test_golden(units, solve, name, threshold):
    boxes, scores = units[f"{name}_boxes"][:, [1, 0, 3, 2]], units[f"{name}_scores"]
    keep = solve(boxes[None], scores[None], threshold, units[f"{name}_idxs"][None])
    kept = np.flatnonzero(keep[0])
    np.testing.assert_array_equal(
        kept[np.argsort(-scores[kept])], units[f"{name}_keep_{threshold}"]
    )


def test_chain(solve):
    # Neighbours overlap with IoU 0.6: 0 suppresses 1, so 2 survives, which suppresses 3.
    boxes = [[[0, 2.5 * i, 10, 2.5 * i + 10] for i in range(4)]]
    keep = solve(boxes, [[0.9, 0.8, 0.7, 0.6]], 0.5)
    np.testing.assert_array_equal(keep, [[True, False, True, False]])
    keep = solve(boxes, [[0.6, 0.7, 0.9, 0.8]], 0.5)  # in any order
    np.testing.assert_array_equal(keep, [[True, False, True, False]])


def test_equality_keeps_and_ties_go_to_the_lower_index(solve):
    boxes = [[[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 4]]]  # IoU 1/2 and 1
    keep = solve(boxes, [[0.5, 0.5, 0.5]], 0.5)
    np.testing.assert_array_equal(keep, [[True, True, False]])


def test_invalid_boxes_are_not_kept_and_suppress_nothing(solve):
    boxes = [[[0, 0, 4, 4]] * 3, [[0, 0, 4, 4]] * 3]
    scores = [[INVALID, 0.1, INVALID], [INVALID] * 3]
    keep = solve(boxes, scores, 0.5)
    np.testing.assert_array_equal(keep, [[False, True, False], [False] * 3])
    keep = solve(boxes, scores, 0.5, np.zeros((2, 3)))
    np.testing.assert_array_equal(keep, [[False, True, False], [False] * 3])


def test_negative_scores_are_valid(solve):
    keep = solve([[[0, 0, 4, 4], [9, 9, 12, 12]]], [[-5.0, -1e30]], 0.5)
    np.testing.assert_array_equal(keep, [[True, True]])


def test_groups_do_not_meet(solve):
    boxes = [[[0, 0, 4, 4]] * 4]
    keep = solve(boxes, [[0.1, 0.2, 0.3, 0.4]], 0.5, [[0, 1, 0, 2]])
    np.testing.assert_array_equal(keep, [[False, True, True, True]])


def test_empty_boxes_stay(solve):
    keep = solve([[[3, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]]], [[0.3, 0.2, 0.1]], 0.5)
    np.testing.assert_array_equal(keep, [[True, True, True]])


def test_crowd_of_problems(solve):
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 60, (3, 200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (3, 200, 2))], -1)
    boxes = boxes.astype("float32")
    scores = rng.uniform(size=(3, 200)).astype("float32")
    scores[:, ::7] = INVALID
    groups = rng.integers(0, 3, (3, 200))
    expected = [greedy(b, s, 0.4, g) for b, s, g in zip(boxes, scores, groups, strict=True)]
    np.testing.assert_array_equal(solve(boxes, scores, 0.4, groups), expected)
    expected = [greedy(b, s, 0.4, 0 * g) for b, s, g in zip(boxes, scores, groups, strict=True)]
    np.testing.assert_array_equal(solve(boxes, scores, 0.4), expected)


# Sides that are whole numbers make many equal overlaps, and few scores make many ties.
entry = st.tuples(
    *[st.integers(0, 12)] * 2, *[st.integers(0, 8)] * 2, st.integers(0, 4), st.integers(0, 1)
)


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(entry, min_size=12, max_size=12), threshold=st.sampled_from([0.25, 0.5]))
def test_both_implementations_are_greedy(entries, threshold):
    entries = np.array(entries)
    boxes = np.concatenate([entries[:, :2], entries[:, :2] + entries[:, 2:4]], 1).astype("float32")
    scores = np.where(entries[:, 4] == 0, INVALID, entries[:, 4] / 4).astype("float32")
    functions = [portable_nms]
    if nms_is_native():
        functions.append(native_nms)
    for groups in (entries[:, 5], None):
        expected = greedy(boxes, scores, threshold, np.zeros(12) if groups is None else groups)
        for function in functions:
            groups_tensor = None if groups is None else ops.convert_to_tensor(groups[None])
            keep = function(
                ops.convert_to_tensor(boxes[None]),
                ops.convert_to_tensor(scores[None]),
                threshold,
                groups_tensor,
            )
            np.testing.assert_array_equal(numpy_of(keep)[0], expected)


def nms_is_native():
    from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels

    return use_tensorflow_kernels()


def test_unknown_sizes_in_a_graph(tf):
    signature = [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None])]
    for function in (native_nms, portable_nms):
        graph = tf.function(lambda b, s, f=function: f(b, s, 0.5), input_signature=signature)
        keep = graph(tf.constant([[[0.0, 0, 4, 4]] * 2]), tf.constant([[0.1, 0.2]]))
        np.testing.assert_array_equal(keep, [[False, True]])


@pytest.mark.parametrize("function", [nms, portable_nms])
def test_float64_decides_what_float32_cannot(function):
    """[0, 0, 1, x] has an IoU of x with the unit square; all scores are one float32."""
    boxes = np.array([[[0, 0, 1, 0.5 + 1e-12], [0, 0, 1, 1], [0, 0, 1, 0.5 - 1e-12]]])
    scores = np.array([[1, 1 + 1e-12, 1 - 1e-12]])
    kept = function(ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores), 0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(kept), [[False, True, True]])
