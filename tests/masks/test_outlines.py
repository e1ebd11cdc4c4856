"""Outlines by hand, and that they hold exactly the pixels of their mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.masks.outlines import outlines, simplify


def mask_of(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def traced(*rows):
    return [[ring.tolist() for ring in polygon] for polygon in outlines(mask_of(*rows))]


def corners(ring):
    """The corners of a ring, whichever comes first, in its direction."""
    start = ring.index(min(ring))
    return ring[start:] + ring[:start]


def test_a_square():
    ((ring,),) = traced("....", ".##.", ".##.")
    assert corners(ring) == [[1, 1], [3, 1], [3, 3], [1, 3]]


def test_a_mask_with_a_hole():
    ((outer, hole),) = traced("###", "#.#", "###")
    assert corners(outer) == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert corners(hole) == [[1, 1], [1, 2], [2, 2], [2, 1]]  # the other way


def test_two_parts_and_one_within_the_hole_of_the_other():
    first, island, second = traced("#####..", "#...#.#", "#.#.#.#", "#...#..", "#####..")
    assert [len(part) for part in (first, island, second)] == [2, 1, 1]
    assert corners(second[0]) == [[2, 2], [3, 2], [3, 3], [2, 3]]
    assert corners(island[0]) == [[6, 1], [7, 1], [7, 3], [6, 3]]


def test_pixels_that_touch_at_a_corner_are_apart():
    assert [len(part) for part in traced("#.", ".#")] == [1, 1]
    # Two holes that touch, and a bay that is closed at a corner.
    ((_, *holes),) = traced("####", "#.##", "##.#", "####")
    assert sorted(corners(hole)[0] for hole in holes) == [[1, 1], [2, 2]]
    ((_, bay),) = traced("##.", "#.#", "###")
    assert corners(bay) == [[1, 1], [1, 2], [2, 2], [2, 1]]


def test_nothing():
    assert outlines(np.zeros((3, 4), bool)) == []


@settings(max_examples=100, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: arrays(bool, s)))
def test_outlines_hold_the_pixels_of_the_mask(mask):
    drawn = np.zeros(mask.shape, int)
    for polygon in outlines(mask):
        for ring in polygon:
            assert len({*map(tuple, ring.tolist())}) == len(ring) >= 4
        areas = [polygon_mask(ring, mask.shape) for ring in polygon]
        for hole in areas[1:]:
            assert (areas[0] & hole).sum() == hole.sum()
        drawn += areas[0] - sum(areas[1:])
    np.testing.assert_array_equal(drawn, mask)


def polygon_mask(ring, size):
    """The pixels of a ring by COCO's rules."""
    (rle,) = coco_mask.frPyObjects([ring.ravel().tolist()], *size)
    return coco_mask.decode(rle).astype(int)


def test_a_staircase_becomes_a_line():
    mask = np.tri(12, dtype=bool)
    ((ring,),) = outlines(mask)
    assert len(ring) == 26
    assert corners(simplify(ring, 1.0).tolist()) == [[0, 12], [1, 0], [12, 12]]
    np.testing.assert_array_equal(simplify(ring, 0), ring)


@pytest.mark.parametrize("tolerance", [1.0, 2.0, 3.0])
def test_no_point_is_farther_than_the_tolerance(tolerance):
    y, x = np.mgrid[:60, :60]
    mask = (x - 30) ** 2 + 2 * (y - 25) ** 2 < 500
    ((ring,),) = outlines(mask)
    simple = simplify(ring, tolerance).astype(float)
    assert 3 <= len(simple) < len(ring) / 2
    starts, ends = simple, np.roll(simple, -1, axis=0)
    along = (ends - starts)[None]
    offset = ring[:, None] - starts[None]
    share = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)
    distances = np.linalg.norm(offset - share[..., None] * along, axis=-1)
    assert distances.min(axis=1).max() <= tolerance


def test_what_is_small_is_left_as_it_is():
    ((ring,),) = outlines(np.ones((1, 1), bool))
    np.testing.assert_array_equal(simplify(ring, 5.0), ring)
