import keras
import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.ops import roi_align as module
from tf_panoptic_fpn.ops.roi_align import (
    axis_weights,
    native_roi_align,
    portable_roi_align,
    roi_align,
    roi_levels,
)

LEVELS = ("P2", "P3", "P4", "P5")
# Sample positions are rounded at about 1e-5 of a cell (128 cells, float32), on maps that change by
# up to 8 a cell.
TOLERANCE = 1e-4


def numpy_of(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(params=["chosen", "portable", "native", "native graph"])
def pool(request):
    """One of the implementations, as function of arrays."""
    name = request.param
    if name.startswith("native"):
        tf = request.getfixturevalue("tf")
        function = native_roi_align
        if name == "native graph":
            function = tf.function(function, autograph=False)
    else:
        function = roi_align if name == "chosen" else portable_roi_align

    def run(features, boxes, output_size, sampling_ratio=0):
        features = {k: ops.convert_to_tensor(v) for k, v in features.items()}
        boxes = ops.convert_to_tensor(boxes, dtype="float32")
        return numpy_of(function(features, boxes, output_size, sampling_ratio))

    return run


def golden_inputs(units):
    """Features `[2, h, w, 3]`, boxes `[2, 40, 4]`, and the (image, row) of each golden box."""
    features = {f"P{i}": units[f"roialign_p{i}"].transpose(0, 2, 3, 1) for i in range(2, 6)}
    boxes, at = np.zeros((2, 40, 4), "float32"), []
    for box, image in zip(units["roialign_boxes"], units["roialign_batch"], strict=True):
        row = sum(other == image for other, _ in at)
        boxes[image, row] = box[[1, 0, 3, 2]]
        at.append((image, row))
    return features, boxes, tuple(np.transpose(at))


def random_features(seed=0, size=64, channels=5, batch=2):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(batch, size >> i, (size + 32) >> i, channels)).astype("float32")
        for i, name in enumerate(LEVELS, start=2)
    }


def random_boxes(seed=0, height=64, width=96, count=12, batch=2):
    rng = np.random.default_rng(seed)
    ends = rng.uniform(0, [height, width], (batch, count, 2, 2))
    return np.concatenate([ends.min(2), ends.max(2)], -1).astype("float32")


def sampled_by_definition(feature, box, bins, ratio):
    """RoIAlign `[bins, bins, C]` of one box in cells, sample by sample."""
    height, width, channels = feature.shape
    size = (box[2:] - box[:2]) / bins
    counts = [ratio or int(np.ceil(s)) for s in size]
    pooled = np.zeros((bins, bins, channels))
    for i, j in np.ndindex(bins, bins):
        for k, m in np.ndindex(*counts):
            y = box[0] - 0.5 + (i + (k + 0.5) / counts[0]) * size[0]
            x = box[1] - 0.5 + (j + (m + 0.5) / counts[1]) * size[1]
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = feature[top, left] * (1 - x + left) + feature[top, right] * (x - left)
            lower = feature[bottom, left] * (1 - x + left) + feature[bottom, right] * (x - left)
            pooled[i, j] += (upper * (1 - y + top) + lower * (y - top)) / (counts[0] * counts[1])
    return pooled


def test_levels_of_golden(units):
    levels = numpy_of(roi_levels(units["roialign_boxes"][:, [1, 0, 3, 2]]))
    np.testing.assert_array_equal(levels, units["roialign_level"])
    assert set(levels) == {2, 3, 4, 5}


def test_levels_by_hand():
    sides = np.array([0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 4000], "float32")
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], -1)
    np.testing.assert_array_equal(numpy_of(roi_levels(boxes)), [2, 2, 2, 3, 3, 4, 4, 5, 5])


@pytest.mark.parametrize("output_size", [7, 14])
def test_golden(units, pool, output_size):
    features, boxes, at = golden_inputs(units)
    expected = units[f"roialign_out{output_size}"].transpose(0, 2, 3, 1)
    pooled = pool(features, boxes, output_size)
    assert pooled.shape == (2, 40, output_size, output_size, 3)
    np.testing.assert_allclose(pooled[at], expected, atol=TOLERANCE)
    empty = (boxes == 0).all(-1)
    assert empty.any() and (pooled[empty] == 0).all()


@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_samples_beyond_the_map(pool, ratio):
    # Up to 6 cells outside the map, on every side: clamped within a cell of it, 0 further out.
    features = random_features(size=32, batch=1)
    boxes = np.array(
        [[-24, -20, 10, 12], [20, 40, 50, 84], [-2, -2, 3, 3], [31, 60, 34, 66], [-4, 8, 28, 20]],
        "float32",
    )
    pooled = pool(features, boxes[None], 3, ratio)
    for box, result in zip(boxes, pooled[0], strict=True):
        expected = sampled_by_definition(features["P2"][0].astype("float64"), box / 4, 3, ratio)
        np.testing.assert_allclose(result, expected, atol=TOLERANCE)


def test_one_cell_grid_and_one_level_each(pool):
    # A constant a level: the output says which level was read.
    features = {
        name: np.full((1, 512 >> i, 512 >> i, 1), i, "float32")
        for i, name in enumerate(LEVELS, start=2)
    }
    sides = [20, 110, 150, 250, 460]
    boxes = np.array([[[5, 5, 5 + s, 5 + s] for s in sides]], "float32")
    # Up to 29 x 29 float32 products in a sum.
    np.testing.assert_allclose(pool(features, boxes, 1)[0, :, 0, 0, 0], [2, 2, 3, 4, 5], rtol=1e-5)


def test_linear_map_by_hand(pool):
    # On the map y + 10 x, a mean of samples is the value at the centre of the bin.
    features = random_features(size=32, batch=1, channels=1)
    rows, columns = np.indices(features["P2"].shape[1:3])
    features["P2"] = (rows + 10.0 * columns)[None, :, :, None].astype("float32")
    pooled = pool(features, [[[4, 8, 20, 32]]], 2)[0, 0, :, :, 0]  # rows 1..5, columns 2..8
    centers_y, centers_x = np.array([2, 4]) - 0.5, np.array([3.5, 6.5]) - 0.5
    np.testing.assert_allclose(pooled, centers_y[:, None] + 10 * centers_x, rtol=1e-5)


def test_compiled_equals_eager(units, compiled):
    features, boxes, _ = golden_inputs(units)
    boxes[1, -1] = np.nan
    features = {k: ops.convert_to_tensor(v) for k, v in features.items()}
    arguments = (features, ops.convert_to_tensor(boxes))
    expected = numpy_of(portable_roi_align(*arguments, 7, 0))
    pooled = numpy_of(compiled(lambda f, b: portable_roi_align(f, b, 7, 0))(*arguments))
    np.testing.assert_allclose(pooled[:, :-1], expected[:, :-1], atol=TOLERANCE)


def test_not_a_number_ends(pool):
    boxes = np.full((1, 2, 4), np.nan, "float32")
    for ratio in (0, 2):
        assert pool(random_features(batch=1), boxes, 7, ratio).shape == (1, 2, 7, 7, 5)


def test_many_chunks(monkeypatch, pool):
    features, boxes = random_features(), random_boxes()
    expected = pool(features, boxes, 7)
    monkeypatch.setattr(module, "BINS_AT_A_TIME", 35)  # 5 rois, of 12
    np.testing.assert_allclose(pool(features, boxes, 7), expected, atol=TOLERANCE)


def test_half_precision_features(pool):
    features, boxes = random_features(), random_boxes()
    expected = pool(features, boxes, 7)
    half = pool({k: v.astype("float16") for k, v in features.items()}, boxes, 7)
    assert half.dtype == "float16"
    np.testing.assert_allclose(half, expected, atol=0.01)  # 10 bits, of values up to 4


def gradients(tf, function, features, boxes, ratio, compiled=False):
    rng = np.random.default_rng(3)
    upstream = tf.constant(rng.normal(size=(*boxes.shape[:2], 7, 7, 5)), tf.float32)

    @tf.function(autograph=False, jit_compile=compiled)
    def run(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            loss = tf.reduce_sum(function(features, boxes, 7, ratio) * upstream)
        return tape.gradient(loss, [features, boxes])

    return run({k: tf.constant(v) for k, v in features.items()}, tf.constant(boxes))


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients_agree(tf, ratio):
    features = random_features(size=480)
    boxes = random_boxes(height=480, width=512, count=30)
    boxes[0, :4] = [[-20, -9, 30, 40], [400, 450, 490, 530], [0, 0, 0, 0], [2, 3, 475, 500]]
    portable, to_boxes = gradients(tf, portable_roi_align, features, boxes, ratio)
    assert to_boxes is None
    native, to_boxes = gradients(tf, native_roi_align, features, boxes, ratio)
    assert to_boxes is None
    for name in LEVELS:
        assert np.abs(portable[name]).max() > 0.1
        np.testing.assert_allclose(native[name], portable[name], atol=TOLERANCE)


def test_gradient_compiled(tf):
    features, boxes = random_features(), random_boxes()
    native, _ = gradients(tf, native_roi_align, features, boxes, 2)
    compiled, _ = gradients(tf, portable_roi_align, features, boxes, 2, compiled=True)
    assert np.abs(native["P2"]).max() > 0.1
    for name in LEVELS:
        np.testing.assert_allclose(compiled[name], native[name], atol=TOLERANCE)


def test_native_gradient_loses_nothing(tf):
    # A mean of samples inside the map: each bin hands its gradient on in full. Many rois on few
    # cells are what the threads of an unsafe kernel would collide over.
    boxes = np.tile(np.array([[[8, 8, 40, 60]]], "float64"), (1, 2000, 1))
    features = {k: tf.constant(v, "float64") for k, v in random_features(batch=1).items()}
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = native_roi_align(features, tf.constant(boxes), 7, 0)
    total = np.sum(tape.gradient(pooled, features)["P2"], dtype="float64")
    assert total == pytest.approx(2000 * 49 * 5, rel=1e-12)


def test_gradient_under_jax():
    if keras.backend.backend() != "jax":
        pytest.skip("of the JAX backend only")
    import jax

    features, boxes = random_features(), random_boxes()
    gradient = jax.jit(
        jax.grad(lambda f: ops.sum(portable_roi_align(f, ops.convert_to_tensor(boxes), 7, 2)))
    )(features)
    # The outputs of each roi of a level sum to 49 x 5 at most, less what falls outside.
    levels = numpy_of(roi_levels(boxes))
    for level, name in enumerate(LEVELS, start=2):
        total = float(ops.sum(gradient[name]))
        assert total == pytest.approx(245 * (levels == level).sum(), rel=1e-4)


@pytest.mark.parametrize(
    "start, size, bins, ratio, expected",
    [
        # Bins [0.5, 2.5] and [2.5, 4.5], two samples each: at 1 and 2, at 3 and 4.
        (0.5, 4, 2, 0, [[0, 0.5, 0.5, 0, 0], [0, 0, 0, 0.5, 0.5]]),
        # One sample each, at 1.5 and 3.5.
        (0.5, 4, 2, 1, [[0, 0.5, 0.5, 0, 0], [0, 0, 0, 0.5, 0.5]]),
        # One sample, at 1.25.
        (0.5, 1.5, 1, 1, [[0, 0.75, 0.25, 0, 0]]),
        # Samples at -1.5 (counts 0) and -0.5 (clamped).
        (-2, 2, 1, 2, [[0.5, 0, 0, 0, 0]]),
        # Samples at 4.5 (clamped) and 5.5 (counts 0).
        (4, 2, 1, 2, [[0, 0, 0, 0, 0.5]]),
        # No length, no samples.
        (2, 0, 1, 0, [[0, 0, 0, 0, 0]]),
    ],
)
def test_axis_weights_by_hand(start, size, bins, ratio, expected):
    start, size = (ops.convert_to_tensor([x], dtype="float32") for x in (start, size))
    weights = numpy_of(axis_weights(start, size, bins, 5, ratio))
    np.testing.assert_allclose(weights, [expected], atol=1e-6)


def test_unknown_shapes_in_a_graph(tf):
    signature = [
        {name: tf.TensorSpec([None, None, None, 5]) for name in LEVELS},
        tf.TensorSpec([None, None, 4]),
    ]
    features, boxes = random_features(), random_boxes()
    expected = numpy_of(portable_roi_align(features, ops.convert_to_tensor(boxes), 7, 0))
    for function in (native_roi_align, portable_roi_align):
        graph = tf.function(
            lambda f, b, pool=function: pool(f, b, 7, 0), input_signature=signature, autograph=False
        )
        assert graph.get_concrete_function().output_shapes[2:] == [7, 7, 5]
        tensors = {k: tf.constant(v) for k, v in features.items()}
        np.testing.assert_allclose(graph(tensors, tf.constant(boxes)), expected, atol=TOLERANCE)
