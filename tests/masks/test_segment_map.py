import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_panoptic_fpn.masks.segment_map import tight_boxes, unique_ids

MAPS = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.sampled_from([0, 3, 70000, 5]),
)


def test_tight_boxes_by_hand():
    ids = np.array([[0, 7, 7, 2], [2, 7, 0, 2], [2, 2, 0, 0]])
    boxes, areas = tight_boxes(ids, [2, 9, 7])
    assert boxes.tolist() == [[0, 0, 3, 4], [0, 0, 0, 0], [0, 1, 2, 3]]
    assert areas.tolist() == [5, 0, 3]
    assert boxes.dtype == np.float32


def test_a_run_ends_with_its_row():
    boxes, areas = tight_boxes(np.array([[0, 4], [4, 0]]), [4])
    assert boxes.tolist() == [[0, 0, 2, 2]]
    assert areas.tolist() == [2]


def test_no_segments():
    boxes, areas = tight_boxes(np.ones((2, 3), int), [])
    assert boxes.shape == (0, 4)
    assert areas.shape == (0,)


@settings(deadline=None)
@given(MAPS)
def test_unique_ids_equals_numpy(ids):
    np.testing.assert_array_equal(unique_ids(ids), np.unique(ids))


@settings(deadline=None)
@given(MAPS)
def test_everything_agrees_with_full_masks(ids):
    segment_ids = [5, 70000, 3]
    boxes, areas = tight_boxes(ids, segment_ids)
    for box, area, segment_id in zip(boxes, areas, segment_ids, strict=True):
        mask = ids == segment_id
        assert area == mask.sum()
        if area:
            (rows, columns), (y1, x1, y2, x2) = np.nonzero(mask), box
            assert (y1, x1, y2, x2) == (
                *np.min([rows, columns], 1),
                *np.max([rows, columns], 1) + 1,
            )
