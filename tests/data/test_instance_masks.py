import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_masks

from tf_panoptic_fpn.data import instance_masks
from tf_panoptic_fpn.masks import segment_map
from tf_panoptic_fpn.masks.rle import runs_of
from tf_panoptic_fpn.masks.segment_map import tight_boxes
from tf_panoptic_fpn.ops.boxes import pairwise_iou
from tf_panoptic_fpn.ops.masks import crop_masks

IDS = (0, 3, 70000, 5)
MAPS = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.sampled_from(IDS),
)


def box_frame_masks(ids, segment_ids, boxes, size=112):
    """`masks_from_map` of NumPy arrays."""
    return instance_masks.masks_from_map(
        tf.constant(ids, tf.int32),
        tf.constant(segment_ids, tf.int32),
        tf.constant(boxes, tf.float32),
        size,
    ).numpy()


def _rle_runs(masks):
    """`foreground_runs` of masks, int32 tensors."""
    rles = [coco_masks.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    return instance_masks.foreground_runs(*(tf.constant(v, tf.int32) for v in runs_of(rles)))


def _sampled_by_hand(mask, box, size):
    """A cell at a time: bilinear between the pixel centres, clamped at the border."""
    y1, x1, y2, x2 = box
    cells = np.zeros((size, size), np.uint8)
    for row in range(size):
        for column in range(size):
            y = y1 + (row + 0.5) * (y2 - y1) / size - 0.5
            x = x1 + (column + 0.5) * (x2 - x1) / size - 0.5
            value = 0.0
            for pixel_y in (np.floor(y), np.floor(y) + 1):
                for pixel_x in (np.floor(x), np.floor(x) + 1):
                    inside = mask[
                        int(np.clip(pixel_y, 0, mask.shape[0] - 1)),
                        int(np.clip(pixel_x, 0, mask.shape[1] - 1)),
                    ]
                    value += inside * (1 - abs(y - pixel_y)) * (1 - abs(x - pixel_x))
            cells[row, column] = value >= 0.5
    return cells


@settings(max_examples=30, deadline=None)
@given(ids=MAPS, transposed=st.booleans())
def test_map_and_runs_give_boxes_and_masks_of_full_size_masks(ids, transposed):
    ids = np.ascontiguousarray(ids.T) if transposed else ids
    segment_ids = np.array([70000, 3, 5], np.int32)
    masks = ids == segment_ids[:, None, None]
    whole = (0, 0, *ids.shape)
    window = tf.constant(whole), tf.constant(whole, tf.float64)
    rectangles, run_ids = instance_masks.map_runs(tf.constant(ids))
    painted = np.zeros_like(ids)
    for (y1, x1, y2, x2), run_id in zip(rectangles.numpy(), run_ids.numpy(), strict=True):
        painted[y1:y2, x1:x2] += run_id
    np.testing.assert_array_equal(painted, ids)
    owners = instance_masks.find_ids(run_ids, tf.constant(segment_ids))
    of_map = instance_masks.tight_boxes(rectangles, owners, 3, *window)
    starts, ends, run_owners = _rle_runs(masks)
    parts = instance_masks.column_rectangles(starts, ends, ids.shape[0])
    of_runs = instance_masks.tight_boxes(parts, tf.tile(run_owners, [3]), 3, *window)
    expected = segment_map.tight_boxes(ids, segment_ids)
    for values in (of_map, of_runs):
        for value, wanted in zip(values, expected, strict=True):
            np.testing.assert_array_equal(value, wanted)

    found = np.flatnonzero(expected[1])
    boxes = expected[0][found]
    sampled = box_frame_masks(ids, segment_ids[found], boxes, size=4)
    place = np.full(3, -1)
    place[found] = np.arange(len(found))
    by_runs = instance_masks.masks_from_runs(
        starts, ends, tf.gather(place.astype(np.int32), run_owners), boxes, ids.shape, size=4
    )
    np.testing.assert_array_equal(by_runs, sampled)
    for mask, box, cells in zip(masks[found], boxes, sampled, strict=True):
        np.testing.assert_array_equal(cells, _sampled_by_hand(mask, box, 4))
    union = instance_masks.union_of_runs(
        starts, ends, run_owners, tf.constant([True, False, True]), tf.constant(ids.shape)
    )
    np.testing.assert_array_equal(union, masks[0] | masks[2])


def test_more_instances_than_a_chunk_holds():
    """37 overlapping bars, of which each has one bit of a plane of 16."""
    masks = np.zeros((37, 8, 50), bool)
    for i, mask in enumerate(masks):
        mask[i % 4 : 5 + i % 3, i : i + 9] = True
    starts, ends, owners = _rle_runs(masks)
    boxes = np.concatenate([tight_boxes(mask.astype(int), [1])[0] for mask in masks])
    sampled = instance_masks.masks_from_runs(starts, ends, owners, boxes, (8, 50), size=6)
    assert sampled.shape == (37, 6, 6)
    for mask, box, cells in zip(masks, boxes, sampled.numpy(), strict=True):
        np.testing.assert_array_equal(cells, box_frame_masks(mask, [1], box[None], size=6)[0])


@pytest.mark.parametrize(
    ("shown", "boxes", "areas"),
    [
        ((0, 0, 2, 4), [[0.75, 0.5, 2, 3], [0.75, 3, 2, 3.25]], [6, 2]),
        ((1, 0, 2, 3), [[1, 0.5, 2, 3], [0, 0, 0, 0]], [3, 0]),
    ],
)
def test_boxes_within_a_window_that_cuts_pixels(shown, boxes, areas):
    ids = np.array([[1, 1, 1, 2], [1, 1, 1, 2]], np.int32)
    rectangles, run_ids = instance_masks.map_runs(tf.constant(ids))
    owners = instance_masks.find_ids(run_ids, tf.constant([1, 2]))
    window = tf.constant([0.75, 0.5, 2, 3.25], tf.float64)
    found = instance_masks.tight_boxes(rectangles, owners, 2, tf.constant(shown), window)
    assert [value.numpy().tolist() for value in found] == [boxes, areas]


@pytest.mark.parametrize(
    ("box", "rows"),
    [
        # Eight cells over the rows of the box; the mask ends at 3.
        ((0, 0, 3, 2), [1, 1, 1, 1, 1, 1, 1, 1]),
        ((0, 0, 4, 2), [1, 1, 1, 1, 1, 1, 0, 0]),  # larger; cells of a half
        ((0, 0, 5, 2), [1, 1, 1, 1, 1, 0, 0, 0]),  # .625; the fifth is centred at 2.8125
        ((0.5, 0, 3.5, 2), [1, 1, 1, 1, 1, 1, 1, 0]),  # .375; the seventh at 2.9375
        ((0.75, 0, 2.25, 2), [1, 1, 1, 1, 1, 1, 1, 1]),  # smaller
        ((2.5, 0, 4.5, 2), [1, 1, 0, 0, 0, 0, 0, 0]),  # a half of the last row
    ],
)
def test_a_box_that_is_not_tight_keeps_the_last_row(box, rows):
    ids = np.zeros((6, 2), np.int32)
    ids[:3] = 1
    masks = box_frame_masks(ids, [1], [box], size=8)
    np.testing.assert_array_equal(masks, np.tile(np.array(rows)[:, None], (1, 1, 8)))
    by_runs = instance_masks.masks_from_runs(
        *_rle_runs([ids]), tf.constant([box], tf.float32), (6, 2), size=8
    )
    np.testing.assert_array_equal(by_runs, masks)

    # Targets of a roi of rows 1 to 5, a pixel each.
    rois, boxes = np.float32([[[1, 0, 5, 2]]]), np.float32([[box]])
    targets = np.asarray(crop_masks(masks[None], boxes, np.zeros((1, 1), np.int32), rois, 4))
    if box[0] <= 1 and box[2] >= 3:
        assert targets[0, 0].T.tolist() == [[1, 1, 0, 0]] * 4


def test_no_instances():
    none = tf.zeros([0], tf.int32)
    assert box_frame_masks(np.zeros((2, 3)), [], np.zeros((0, 4))).shape == (0, 112, 112)
    assert instance_masks.find_ids(tf.constant([4, 9]), none).numpy().tolist() == [-1, -1]
    assert [value.shape for value in instance_masks.foreground_runs(none, none)] == [(0,)] * 3


def test_a_full_rectangle_fills_its_frame():
    ids = np.zeros((9, 13), int)
    ids[2:7, 3:5] = 4
    masks = box_frame_masks(ids, [4], np.array([[2, 3, 7, 5]], np.float32))
    assert masks.shape == (1, 112, 112)
    assert masks.dtype == np.uint8
    assert masks[0, 0, 56] == masks[0, 56, 0] == masks[0, 56, 56] == 1
    # Interpolation rounds the corners: u and v pixels inside of one, the value is
    # (.5 + u)(.5 + v), which is below a half on ln(2) / 2 - 1 / 4 of a pixel. The rectangle has 10.
    assert masks[0, 0, 0] == 0
    assert masks.mean() == pytest.approx(1 - 4 * (np.log(2) / 2 - 1 / 4) / 10, abs=0.002)


def test_box_frame_masks_by_hand():
    """Six cells over three pixels, 1 0 1: the centres are at -.25, .25, .75, 1.25, 1.75, 2.25.

    Interpolated between the pixel centres, and clamped at the border of the map, these are 1, .75,
    .25, .25, .75, 1.
    """
    ids = np.tile([5, 8, 5], (6, 1))
    masks = box_frame_masks(ids, [5, 8], np.array([[0, 0, 6, 3]] * 2, np.float32), size=6)
    assert masks[0].tolist() == [[1, 1, 0, 0, 1, 1]] * 6
    assert masks[1].tolist() == [[0, 0, 1, 1, 0, 0]] * 6


def test_a_half_is_inside():
    masks = box_frame_masks(np.array([[5, 8]]), [5, 8], np.array([[0, 0, 1, 2]] * 2), size=1)
    assert masks.tolist() == [[[1]], [[1]]]


def test_box_frame_masks_are_relative_to_the_box():
    ids = np.zeros((40, 50), int)
    ids[5:15, 8:20] = np.random.default_rng(0).integers(0, 2, (10, 12))
    moved = np.roll(ids, (17, 21), (0, 1))
    box = np.array([[5, 8, 15, 20]], np.float32)
    np.testing.assert_array_equal(
        box_frame_masks(ids, [1], box),
        box_frame_masks(moved, [1], box + np.array([17, 21, 17, 21])),
    )


def _frames(masks):
    """Boxes and box-frame masks of full-size masks that may overlap."""
    boxes = np.concatenate([tight_boxes(mask.astype(int), [1])[0] for mask in masks])
    pairs = zip(masks, boxes, strict=True)
    frames = [box_frame_masks(mask.astype(int), [1], box[None])[0] for mask, box in pairs]
    return boxes, np.stack(frames)


def _targets(masks, matched, rois):
    boxes, frames = _frames(masks)
    matched = np.asarray(matched, np.int32)
    return np.asarray(crop_masks(frames[None], boxes[None], matched[None], rois[None], 28))[0]


def test_mask_targets_agree_with_detectron2s_crops(goldens_dir):
    units = np.load(goldens_dir / "units.npz")
    rois = units["crop_boxes"][:, [1, 0, 3, 2]]
    targets = _targets(units["crop_masks"], np.arange(6), rois)
    # The cells that differ lie on an outline: 112 cells a side stand for the pixels of the mask.
    assert (targets == units["crop_bit28"]).mean() > 0.995


def test_mask_targets_agree_with_detectron2s_training(goldens_dir):
    golden = np.load(goldens_dir / "train_a.npz")
    expected = golden["mask_targets"]
    for i in range(2):
        rois = golden[f"mask_fg_boxes_{i}"][:, [1, 0, 3, 2]]
        gt_boxes = golden[f"gt_boxes_{i}"][:, [1, 0, 3, 2]]
        np.testing.assert_array_equal(_frames(golden[f"gt_masks_{i}"])[0], gt_boxes)
        matched = np.asarray(pairwise_iou(gt_boxes, rois)).argmax(0)
        targets = _targets(golden[f"gt_masks_{i}"], matched, rois)
        agreement = (targets == expected[: len(rois)]).mean((1, 2))
        expected = expected[len(rois) :]
        assert agreement.mean() > 0.99
        assert agreement.min() > 0.97
    assert len(expected) == 0
