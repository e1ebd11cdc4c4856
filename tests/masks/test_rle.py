import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.masks.rle import runs_of


def _mask(runs, size):
    """The slow way: a mask from the runs down its columns."""
    pixels = [value for i, run in enumerate(runs.tolist()) for value in [i % 2] * run]
    return np.array(pixels, np.uint8).reshape(size[::-1]).T


@settings(max_examples=60, deadline=None)
@given(
    masks=st.lists(
        arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 12)] * 2), elements=st.integers(0, 1)),
        max_size=4,
    )
)
def test_the_runs_are_those_of_the_masks(masks):
    runs, num_runs = runs_of([coco_mask.encode(np.asfortranarray(mask)) for mask in masks])
    assert runs.dtype == np.uint16
    pieces = np.split(runs, np.cumsum(num_runs)[:-1]) if len(masks) else []
    for mask, piece in zip(masks, pieces, strict=True):
        np.testing.assert_array_equal(_mask(piece, mask.shape), mask)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([3, 2, 1], [3, 2, 1]),
        ([65535, 1], [65535, 1]),
        ([65536, 4], [65535, 0, 1, 4]),
        ([5, 65535 * 2 + 7, 1], [5, 65535, 0, 65535, 0, 7, 1]),
        ([0, 131070], [0, 65535, 0, 65535]),
    ],
)
def test_long_runs_are_split(counts, expected):
    rle = coco_mask.frPyObjects({"size": [sum(counts), 1], "counts": counts}, sum(counts), 1)
    runs, num_runs = runs_of([rle, {"counts": b""}, rle])
    assert runs.tolist() == expected * 2
    assert num_runs.tolist() == [len(expected), 0, len(expected)]
