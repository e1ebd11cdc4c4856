import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.data.segmentation import (
    foreground,
    mask_runs,
    runs_area,
    runs_box,
    runs_mask,
    segmentation_runs,
)
from tf_panoptic_fpn.errors import DataError

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
    assert runs_box(runs, mask.shape[0]) == tuple(coco_mask.toBbox(rle))
    starts, lengths = foreground(runs)
    pixels = [p for s, n in zip(starts, lengths, strict=True) for p in range(s, s + n)]
    np.testing.assert_array_equal(pixels, np.flatnonzero(mask.ravel(order="F")))


def test_long_runs():
    mask = np.zeros((500, 700), bool)
    mask[:, 1:-1] = True  # one run of 349000: 4 characters
    np.testing.assert_array_equal(
        segmentation_runs(compressed(mask), mask.shape), [500, 349000, 500]
    )


def test_polygons():
    runs = segmentation_runs([SQUARE], (6, 8))
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:6] = True
    np.testing.assert_array_equal(runs_mask(runs, (6, 8)), mask)
    # A second polygon joins; what is outside the image is cut.
    both = segmentation_runs([SQUARE, [6.0, 4.0, 20.0, 4.0, 20.0, 20.0, 6.0, 20.0]], (6, 8))
    mask[4:, 6:] = True
    np.testing.assert_array_equal(runs_mask(both, (6, 8)), mask)
    outside = segmentation_runs([[20, 20, 30, 20, 30, 30]], (6, 8))
    assert runs_area(outside) == 0
    assert runs_box(outside, 6) == (0, 0, 0, 0)


NAN = float("nan")


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        (None, "polygons or an RLE. Received: NoneType"),
        ([], "no polygon"),
        ([[1, 2, 3, 4]], "3 points or more, of 2 numbers each. Received: 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "Received: 7 numbers"),
        ([[1, 2, 3, 4, 5, NAN]], "a point at nan"),
        ([[1, 2, 3, 4, 5, 1e9]], "in or near the image"),
        ([[1, 2, 3, 4, 5, 10**400]], "in or near the image"),
        ([[1, 2, 3, 4, 5, "6"]], "a list of numbers"),
        ([7], "a list of numbers"),
        ({"size": [6, 9], "counts": [48]}, r"size must be \[6, 8\].* Received: \[6, 9\]"),
        ({"counts": [48]}, "size must be"),
        ({"size": [6, 8], "counts": [40]}, "sum to 48. Received: 40"),
        ({"size": [6, 8], "counts": [50, -2]}, "from 0 to height x width"),
        ({"size": [6, 8], "counts": 3}, "a list or text. Received: 3"),
        ({"size": [6, 8], "counts": ""}, "sum to 48. Received: 0"),
        ({"size": [6, 8], "counts": "\u00e9"}, "not COCO's text"),
        ({"size": [6, 8], "counts": "Q"}, "not COCO's text"),  # says that more follows
        ({"size": [6, 8], "counts": "PPPPPPPPP1"}, "not COCO's text"),  # 50 bits
        ({"size": [6, 8], "counts": "o0"}, "not COCO's text|0 or above|sum"),
    ],
)
def test_what_breaks_a_rule_is_refused(segmentation, fault):
    with pytest.raises(DataError, match=fault) as caught:
        segmentation_runs(segmentation, (6, 8))
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=8)
        | st.dictionaries(st.sampled_from(["size", "counts", "x"]), children, max_size=3)
    ),
    max_leaves=12,
)
RLE = st.fixed_dictionaries(
    {
        "size": st.just([6, 8]) | JSON,
        "counts": st.lists(st.integers(-3, 50)) | st.text("0123456789:;<OPQo", max_size=12) | JSON,
    }
)
POLYGONS = st.lists(st.lists(st.floats(-50, 90) | st.integers(-99, 99), max_size=12), max_size=3)


@given(JSON | RLE | POLYGONS)
@settings(deadline=None, max_examples=200)
def test_any_json_is_a_mask_or_a_data_error(segmentation):
    try:
        runs = segmentation_runs(segmentation, (6, 8))
    except DataError:
        return
    assert runs.sum() == 48
    assert runs.min() >= 0
