import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.augment import box_frame_masks, flip_sample, resize_sample
from tf_panoptic_fpn.data.segment_map import semantic_labels, tight_boxes
from tf_panoptic_fpn.data.shapes import draw_shapes
from tf_panoptic_fpn.ops.boxes import pairwise_iou
from tf_panoptic_fpn.ops.masks import crop_masks


def _sample(image, ids, segment_ids):
    """A sample whose semantic class is the segment id, so that labels show where instances are."""
    boxes, _ = tight_boxes(ids, segment_ids)
    return {
        schema.IMAGES: image,
        schema.SEMANTIC: semantic_labels(ids, segment_ids, segment_ids),
        schema.GT_BOXES: boxes,
        schema.GT_MASKS: box_frame_masks(ids, segment_ids, boxes),
        schema.GT_CLASSES: np.arange(len(segment_ids)),
    }


def _flip_boxes(boxes, width):
    return np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], 1)


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


def test_no_instances():
    sample = _sample(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), int), [])
    sample = flip_sample(resize_sample(sample, (8, 3)))
    assert sample[schema.GT_MASKS].shape == (0, 112, 112)
    assert sample[schema.GT_BOXES].shape == (0, 4)
    assert sample[schema.GT_BOXES].dtype == np.float32


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


SEEDS = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_flip_equals_flipping_the_full_size_map(seed):
    image, ids, category_ids = draw_shapes((64, 80), np.random.default_rng(seed))
    segment_ids = list(category_ids)
    flipped = flip_sample(_sample(image, ids, segment_ids))
    expected = _sample(image[:, ::-1], ids[:, ::-1], segment_ids)
    for key in (schema.IMAGES, schema.SEMANTIC, schema.GT_BOXES, schema.GT_CLASSES):
        np.testing.assert_array_equal(flipped[key], expected[key])
    # An interpolated value of exactly a half may be rounded to either side.
    assert (flipped[schema.GT_MASKS] != expected[schema.GT_MASKS]).mean() < 0.005
    twice = flip_sample(flipped)
    np.testing.assert_array_equal(
        twice[schema.GT_MASKS], box_frame_masks(ids, segment_ids, twice[schema.GT_BOXES])
    )
    np.testing.assert_array_equal(twice[schema.IMAGES], image)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, factor=st.integers(2, 4))
def test_whole_factors_equal_repeating_the_pixels(seed, factor):
    image, ids, category_ids = draw_shapes((64, 80), np.random.default_rng(seed))
    segment_ids = list(category_ids)
    resized = resize_sample(_sample(image, ids, segment_ids), (64 * factor, 80 * factor))
    repeated = ids.repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(
        resized[schema.SEMANTIC], semantic_labels(repeated, segment_ids, segment_ids)
    )
    np.testing.assert_array_equal(resized[schema.GT_BOXES], tight_boxes(repeated, segment_ids)[0])
    assert resized[schema.IMAGES].shape == (64 * factor, 80 * factor, 3)


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS,
    height=st.integers(128, 192),
    width=st.integers(160, 240),
    flip=st.booleans(),
)
def test_boxes_masks_and_labels_move_together(seed, height, width, flip):
    """Each mask, laid over its box, covers the pixels that the resized map gives the instance."""
    image, ids, category_ids = draw_shapes((128, 160), np.random.default_rng(seed))
    sample = resize_sample(_sample(image, ids, list(category_ids)), (height, width))
    if flip:
        sample = flip_sample(sample)
    pixels = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    for segment_id, box, mask in zip(
        category_ids, sample[schema.GT_BOXES], sample[schema.GT_MASKS], strict=True
    ):
        rows, columns = (
            np.floor((centres - low) / (high - low) * 112).astype(int)
            for centres, low, high in zip(pixels, box[:2], box[2:], strict=True)
        )
        inside = (rows >= 0) & (rows < 112) & (columns >= 0) & (columns < 112)
        laid = inside & (mask[rows.clip(0, 111), columns.clip(0, 111)] == 1)
        labelled = sample[schema.SEMANTIC] == segment_id
        # A cell is up to 160 / 112 pixels wide, so cell centres and interpolation move an outline
        # by up to 0.7 + 0.5 pixels of the map, and by 1.5 times that after resizing.
        assert not (laid & ~_grown(labelled, 2)).any()
        assert not (~laid & ~_grown(~labelled, 2)).any()


def _grown(mask, pixels):
    """The mask and whatever lies within so many pixels of it."""
    window = 2 * pixels + 1
    padded = np.pad(mask, pixels, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (window, window)).any((2, 3))


@pytest.mark.parametrize("size", [(3, 10), (24, 5)])
def test_resize_scales_each_axis_of_the_boxes(size):
    ids = np.zeros((6, 20), int)
    ids[2:4, 5:15] = 1
    sample = resize_sample(_sample(np.zeros((6, 20, 3), np.uint8), ids, [1]), size)
    expected = np.array([2 / 6 * size[0], 5 / 20 * size[1], 4 / 6 * size[0], 15 / 20 * size[1]])
    np.testing.assert_allclose(sample[schema.GT_BOXES], expected[None], rtol=1e-6)
    np.testing.assert_array_equal(
        _flip_boxes(sample[schema.GT_BOXES], size[1]), flip_sample(sample)[schema.GT_BOXES]
    )
