"""Images with rare things come more often."""

import types

import numpy as np

from tf_panoptic_fpn.data.index import batch_schedule
from tf_panoptic_fpn.data.repeats import repeat_factors


class Index(types.SimpleNamespace):
    def __len__(self):
        return len(self.instance_offsets) - 1


def make_index(classes, crowds=()):
    """An index of images with the given thing classes; `crowds` are positions of instances."""
    flat = np.array([c for image in classes for c in image], np.int32)
    is_crowd = np.isin(np.arange(len(flat)), crowds)
    offsets = np.cumsum([0, *map(len, classes)])
    return Index(instance_classes=flat, instance_is_crowd=is_crowd, instance_offsets=offsets)


def test_factors_by_hand():
    # Class 0 is in 4 of 8 images, 1 in 2, 3 in 1; class 2 in none.
    images = [[0, 0, 0], [0, 1], [1], [0, 3], [0], [], [], []]
    factors = repeat_factors(make_index(images), 0.5)
    np.testing.assert_allclose(factors, [1, 2**0.5, 2**0.5, 2, 1, 1, 1, 1])
    np.testing.assert_array_equal(repeat_factors(make_index(images), 0.1), np.ones(8))
    # A crowd of class 3 asks for nothing.
    crowd = repeat_factors(make_index(images, crowds=[7]), 0.5)
    np.testing.assert_allclose(crowd, [1, 2**0.5, 2**0.5, 1, 1, 1, 1, 1])


def test_nothing_to_repeat():
    np.testing.assert_array_equal(repeat_factors(make_index([[], []]), 0.5), [1, 1])


def test_how_often_images_come():
    sizes = np.tile(np.int32([20, 30]), (5, 1))
    repeats = np.array([1, 1, 2.25, 1.5, 1])
    epoch = 1000
    schedule = batch_schedule(sizes, 5, epoch, seed=1, repeats=repeats).ravel()
    shares = np.bincount(schedule) / len(schedule)
    np.testing.assert_allclose(shares, repeats / repeats.sum(), atol=0.015)
    # A pure function of seed and epoch, and the order of no repeats at all.
    np.testing.assert_array_equal(
        batch_schedule(sizes, 5, 30, seed=1, repeats=repeats).ravel(), schedule[:150]
    )
    np.testing.assert_array_equal(
        batch_schedule(sizes, 5, 7, seed=1, repeats=np.ones(5)), batch_schedule(sizes, 5, 7, seed=1)
    )
    assert schedule[:50].tolist() != batch_schedule(sizes, 5, 10, 2, repeats).ravel().tolist()
