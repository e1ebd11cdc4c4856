import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.ops import sampling
from tf_panoptic_fpn.ops.sampling import random_priorities, sample_labels, sample_rois


def numpy_of(x):
    return ops.convert_to_numpy(x)


def seeds(*values):
    return np.array(values, "int32")


def keys_of(count):
    return np.arange(count, dtype="int32")


def row_keys(labels):
    return np.tile(keys_of(labels.shape[1]), (len(labels), 1))


def labels_of(positive, negative, neither, seed=0):
    labels = np.repeat([1, 0, -1], [positive, negative, neither]).astype("int32")
    return np.random.default_rng(seed).permutation(labels)


def reference_hash(x):
    """The hash on unsigned Python integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def test_priorities_are_the_same_everywhere(compiled):
    values = [0, 1, -7, 2**31 - 1]
    expected = [
        [
            reference_hash(
                reference_hash(reference_hash(s % 2**32) ^ reference_hash(0x3C6EF372 + 5))
                ^ reference_hash(i)
            )
            % 2**31
            for i in range(50)
        ]
        for s in values
    ]
    np.testing.assert_array_equal(
        numpy_of(random_priorities(seeds(*values), keys_of(50), 5)), expected
    )
    function = compiled(lambda s: random_priorities(s, keys_of(50), 5))
    result = function(ops.convert_to_tensor(seeds(*values)))
    np.testing.assert_array_equal(numpy_of(result), expected)


def test_priorities_are_uniform():
    # Chi-square over 64 equal bins, 63 degrees of freedom: the mean is 63, the deviation 11.2.
    for stream in range(3):
        drawn = numpy_of(random_priorities(seeds(0, 1, 2, 1000), keys_of(20000), stream))
        assert drawn.min() >= 0
        for row in drawn:
            for bits in (row >> 25, row & 63):
                counts = np.bincount(bits, minlength=64)
                assert ((counts - 312.5) ** 2 / 312.5).sum() < 130


def test_seeds_and_streams_are_independent():
    a, b = numpy_of(random_priorities(seeds(3, 4), keys_of(20000), 0)).astype("float64")
    c = numpy_of(random_priorities(seeds(3), keys_of(20000), 1))[0].astype("float64")
    # The deviation of the correlation of independent draws is 1 / sqrt(20000) = 0.007.
    for x, y in ((a, b), (a, c), (a[1:], a[:-1]), (a[1:], b[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.035


@pytest.mark.parametrize(
    "positive, negative, expected",
    [
        (500, 3000, (128, 128)),
        (20, 3000, (20, 236)),
        (300, 40, (128, 40)),
        (0, 9, (0, 9)),
        (0, 0, (0, 0)),
    ],
)
def test_label_counts(positive, negative, expected):
    labels = labels_of(positive, negative, 50)[None]
    sampled = numpy_of(sample_labels(labels, 256, 128, seeds(7)))
    assert ((sampled == 1).sum(), (sampled == 0).sum()) == expected
    kept = sampled != -1
    np.testing.assert_array_equal(sampled[kept], labels[kept])
    assert sampled.dtype == "int32"


def test_labels_are_drawn_uniformly():
    labels = np.repeat(np.repeat([[1, 0]], [10, 30], axis=1), 4000, axis=0).astype("int32")
    sampled = numpy_of(sample_labels(labels, 16, 4, np.arange(4000, dtype="int32")))
    assert ((sampled == 1).sum(1) == 4).all() and ((sampled == 0).sum(1) == 12).all()
    # Each is drawn with probability 0.4, whose deviation over 4000 draws is 0.0078.
    assert np.abs((sampled != -1).mean(0) - 0.4).max() < 0.035


def test_counts_are_exact_under_ties(monkeypatch):
    constant = lambda seeds, keys, stream: ops.zeros([len(seeds), len(keys)], dtype="int32")  # noqa: E731
    monkeypatch.setattr(sampling, "random_priorities", constant)
    sampled = numpy_of(sample_labels(labels_of(40, 90, 7)[None], 32, 16, seeds(0)))
    assert (sampled == 1).sum() == 16 and (sampled == 0).sum() == 16


def test_an_image_does_not_depend_on_its_batch():
    labels = np.stack([labels_of(200, 700, 100, seed) for seed in range(3)])
    together = numpy_of(sample_labels(labels, 64, 32, seeds(5, 6, 5)))
    alone = numpy_of(sample_labels(labels[1:2], 64, 32, seeds(6)))
    np.testing.assert_array_equal(together[1:2], alone)
    indices = numpy_of(sample_rois(labels, row_keys(labels), 64, 16, seeds(5, 6, 5))[0])
    np.testing.assert_array_equal(
        indices[1:2], numpy_of(sample_rois(labels[1:2], row_keys(labels[1:2]), 64, 16, seeds(6))[0])
    )
    other = numpy_of(sample_labels(labels[1:2], 64, 32, seeds(8)))
    assert (other != alone).any()


@pytest.mark.parametrize(
    "foreground, background, expected",
    [
        (60, 400, (16, 48)),
        (5, 400, (5, 59)),
        (60, 20, (16, 20)),
        (0, 400, (0, 64)),
        (3, 0, (3, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_rois_foreground_first(foreground, background, expected):
    labels = labels_of(foreground, background, 30)
    indices, is_foreground, is_valid = map(
        numpy_of, sample_rois(labels[None], row_keys(labels[None]), 64, 16, seeds(2))
    )
    num_foreground, num_background = expected
    slots = np.arange(64)
    np.testing.assert_array_equal(is_foreground[0], slots < num_foreground)
    np.testing.assert_array_equal(is_valid[0], slots < num_foreground + num_background)
    drawn = indices[0][is_valid[0]]
    assert len(set(drawn)) == len(drawn)
    assert (labels[drawn[:num_foreground]] == 1).all()
    assert (labels[drawn[num_foreground:]] == 0).all()
    assert (indices[0][~is_valid[0]] == 0).all()
    assert indices.dtype == "int32"


def test_compiled_equals_eager(compiled):
    labels = np.stack([labels_of(200, 700, 100, seed) for seed in range(2)])
    arguments = [ops.convert_to_tensor(x) for x in (labels, seeds(1, 2))]
    keys = row_keys(labels)
    function = compiled(
        lambda labels, seeds: (
            sample_labels(labels, 64, 32, seeds),
            *sample_rois(labels, keys, 64, 16, seeds),
        )
    )
    expected = [
        sample_labels(labels, 64, 32, seeds(1, 2)),
        *sample_rois(labels, keys, 64, 16, seeds(1, 2)),
    ]
    for result, value in zip(function(*arguments), expected, strict=True):
        np.testing.assert_array_equal(numpy_of(result), numpy_of(value))


def test_unknown_number_of_anchors(tf):
    signature = [tf.TensorSpec([None, None], "int32"), tf.TensorSpec([None], "int32")]
    function = tf.function(lambda *a: sample_labels(a[0], 64, 32, a[1]), input_signature=signature)
    labels = labels_of(50, 90, 4)[None]
    np.testing.assert_array_equal(
        function(labels, seeds(3)), numpy_of(sample_labels(labels, 64, 32, seeds(3)))
    )


def test_rois_do_not_depend_on_their_order():
    labels = labels_of(60, 400, 30)[None]
    order = np.random.default_rng(1).permutation(labels.shape[1])
    keys = row_keys(labels)
    indices, _, _ = sample_rois(labels, keys, 64, 16, seeds(2))
    shuffled, _, _ = sample_rois(labels[:, order], keys[:, order], 64, 16, seeds(2))
    np.testing.assert_array_equal(order[numpy_of(shuffled)[0]], numpy_of(indices)[0])
