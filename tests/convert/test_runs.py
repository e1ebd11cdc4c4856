import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.convert.runs import (
    foreground,
    mask_runs,
    runs_area,
    runs_mask,
    segmentation_runs,
)
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.masks.rle import encode_segmentation, mask_box

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # 4 wide, 3 high


def compressed(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@given(MASKS)
@settings(deadline=None)
def test_runs_of_a_mask(mask):
    runs = mask_runs(mask)
    assert runs.sum() == mask.size
    np.testing.assert_array_equal(runs_mask(runs, mask.shape), mask)
    rle = compressed(mask)
    np.testing.assert_array_equal(segmentation_runs(rle, mask.shape), runs)
    as_text = {"size": rle["size"], "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(segmentation_runs(as_text, mask.shape), runs)
    as_list = {"size": list(mask.shape), "counts": runs.tolist()}
    np.testing.assert_array_equal(segmentation_runs(as_list, mask.shape), runs)
    assert runs_area(runs) == mask.sum()
    assert mask_box(encode_segmentation(as_list, mask.shape)) == tuple(coco_mask.toBbox(rle))
    starts, lengths = foreground(runs)
    pixels = [p for s, n in zip(starts, lengths, strict=True) for p in range(s, s + n)]
    np.testing.assert_array_equal(pixels, np.flatnonzero(mask.ravel(order="F")))


def test_long_runs():
    mask = np.zeros((500, 700), bool)
    mask[:, 1:-1] = True  # one run of 349000: 4 characters
    runs = segmentation_runs(compressed(mask), mask.shape)
    np.testing.assert_array_equal(runs_mask(runs, mask.shape), mask)
    assert (runs_area(runs), mask_box(compressed(mask))) == (349000, (1, 0, 698, 500))


def test_polygons():
    runs = segmentation_runs([SQUARE], (6, 8))
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:6] = True
    np.testing.assert_array_equal(runs_mask(runs, (6, 8)), mask)
    # A second polygon joins; what is outside the image is cut.
    both = segmentation_runs([SQUARE, [6.0, 4.0, 12.0, 4.0, 12.0, 10.0, 6.0, 10.0]], (6, 8))
    mask[4:, 6:] = True
    np.testing.assert_array_equal(runs_mask(both, (6, 8)), mask)
    nothing = mask_runs(np.zeros((6, 8), bool))
    assert runs_area(nothing) == 0
    assert mask_box(compressed(np.zeros((6, 8), bool))) == (0, 0, 0, 0)
    with pytest.raises(DataError, match=r"sum to 48, the image's pixels. Received: 40"):
        segmentation_runs({"size": [6, 8], "counts": [40]}, (6, 8))
