import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.ops.masks import crop_masks, paste_masks

SWAP = [1, 0, 3, 2]


def run(function, *arguments):
    """Calls with tensors for arrays, and returns arrays."""
    tensors = [ops.convert_to_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    return ops.convert_to_numpy(function(*tensors))


def box_frame_mask(mask, box, size=112):
    """The bitmap of a mask in the frame of its box: bilinear at the centres of the cells."""

    def weights(start, end, extent):
        centers = start + (np.arange(size) + 0.5) / size * (end - start) - 0.5
        distances = np.clip(centers, 0, extent - 1)[:, None] - np.arange(extent)
        return np.maximum(1 - np.abs(distances), 0)

    rows = weights(box[0], box[2], mask.shape[0])
    columns = weights(box[1], box[3], mask.shape[1])
    return (rows @ mask.astype("float64") @ columns.T >= 0.5).astype("uint8")


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.float32([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def test_paste_golden(units):
    pasted = run(paste_masks, units["paste_probs"], units["paste_boxes"][:, SWAP], (70, 90))
    np.testing.assert_allclose(pasted, units["paste_soft"], atol=2e-6)
    np.testing.assert_array_equal(pasted >= 0.5, units["paste_bool"])
    assert pasted.dtype == "float32"


def test_paste_onto_its_own_grid_is_the_identity():
    masks = np.random.default_rng(0).uniform(size=(2, 5, 7)).astype("float32")
    pasted = run(paste_masks, masks, np.float32([[0, 0, 5, 7], [2, 3, 7, 10]]), (8, 12))
    np.testing.assert_allclose(pasted[0, :5, :7], masks[0], atol=1e-6)
    np.testing.assert_allclose(pasted[1, 2:7, 3:10], masks[1], atol=1e-6)
    assert pasted[0, 5:].max() == 0 and pasted[1, :2].max() == 0


def test_paste_doubled_by_hand():
    # Pixel centres fall on -1/4, 1/4, 3/4 and 5/4 of the cells; outside there are zeros.
    pasted = run(paste_masks, np.float32([[[1, 0]]]), np.float32([[0, 0, 1, 4]]), (1, 4))
    np.testing.assert_allclose(pasted[0, 0], [0.75, 0.75, 0.25, 0], atol=1e-6)


def test_paste_of_boxes_without_area():
    boxes = np.float32([[0, 0, 0, 0], [3, 3, 3, 6], [5, 5, 4, 4]])
    assert run(paste_masks, np.ones((3, 4, 4), "float32"), boxes, (8, 8)).max() == 0


def test_paste_far_outside():
    boxes = np.float32([[-30, -30, -10, -10], [50, 2, 60, 6], [-4, -4, 4, 4]])
    pasted = run(paste_masks, np.ones((3, 28, 28), "float32"), boxes, (8, 8))
    assert pasted[:2].max() == 0
    np.testing.assert_allclose(pasted[2, :3, :3], 1)
    assert pasted[2, 4:].max() == 0


def test_paste_with_sizes_known_at_run_time(units, tf, compiled):
    probs, boxes = units["paste_probs"], units["paste_boxes"][:, SWAP]
    expected = run(paste_masks, probs, boxes, (70, 90))
    graph = tf.function(
        paste_masks,
        input_signature=[
            tf.TensorSpec([None, None, None]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([2], "int32"),
        ],
    )
    np.testing.assert_allclose(graph(probs, boxes, [70, 90]), expected, atol=1e-6)
    static = compiled(lambda p, b: paste_masks(p, b, (70, 90)))
    np.testing.assert_allclose(static(probs, boxes), expected, atol=2e-6)


def test_crop_golden(units):
    masks = units["crop_masks"]
    boxes = np.stack([box_of(mask) for mask in masks])
    bitmaps = np.stack([box_frame_mask(m, b) for m, b in zip(masks, boxes, strict=True)])
    rois = units["crop_boxes"][:, SWAP]
    # Two images with the instances in opposite orders.
    reverse = np.arange(6)[::-1]
    targets = run(
        crop_masks,
        np.stack([bitmaps, bitmaps[reverse]]),
        np.stack([boxes, boxes[reverse]]),
        np.stack([np.arange(6), reverse]).astype("int32"),
        np.stack([rois, rois]),
        28,
    )
    assert targets.dtype == "float32" and set(np.unique(targets)) == {0, 1}
    np.testing.assert_array_equal(targets[0], targets[1])
    # The box-frame bitmap is a second sampling; it shifts the rim by less than a cell.
    agreement = (targets[0] == units["crop_bit28"]).mean(axis=(1, 2))
    assert agreement.min() >= 0.99
    assert agreement.mean() >= 0.998


def test_crop_of_the_box_itself_is_the_bitmap():
    mask = (np.random.default_rng(0).uniform(size=(28, 28)) > 0.5).astype("uint8")
    bitmap = np.kron(mask, np.ones((4, 4), "uint8"))[None, None]
    box = np.float32([[[10, 20, 66, 34]]])
    targets = run(crop_masks, bitmap, box, np.zeros((1, 1), "int32"), box, 28)
    np.testing.assert_array_equal(targets[0, 0], mask)


def test_crop_outside_the_truth_is_zero():
    # The left half of the roi is left of the box, its lower half below.
    bitmap = np.ones((1, 1, 112, 112), "uint8")
    box, roi = np.float32([[[0, 20, 40, 60]]]), np.float32([[[0, 0, 80, 40]]])
    targets = run(crop_masks, bitmap, box, np.zeros((1, 1), "int32"), roi, 28)[0, 0]
    expected = np.zeros((28, 28))
    expected[:14, 14:] = 1
    np.testing.assert_array_equal(targets, expected)


@pytest.mark.parametrize("index", [0, 1])
def test_crop_of_padding_is_zero(index):
    masks = np.ones((1, 2, 112, 112), "uint8") * np.uint8([1, 0])[None, :, None, None]
    boxes = np.float32([[[0, 0, 40, 40], [0, 0, 0, 0]]])
    rois = np.float32([[[100, 100, 900, 900], [0, 0, 0, 0]]])
    targets = run(crop_masks, masks, boxes, np.int32([[index, index]]), rois, 28)
    assert targets.shape == (1, 2, 28, 28) and targets.max() == 0


def test_crop_compiled_equals_eager(compiled):
    rng = np.random.default_rng(1)
    masks = (rng.uniform(size=(2, 3, 112, 112)) > 0.5).astype("uint8")
    corners = rng.uniform(0, 50, (2, 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (2, 3, 2))], -1).astype("float32")
    index = rng.integers(0, 3, (2, 9)).astype("int32")
    rois = np.take_along_axis(boxes, index[..., None], 1) + rng.uniform(-4, 4, (2, 9, 4))
    arguments = [ops.convert_to_tensor(x) for x in (masks, boxes, index, rois.astype("float32"))]
    expected = run(crop_masks, *arguments, 28)
    result = run(compiled(lambda *a: crop_masks(*a, 28)), *arguments)
    # Means of random bits lie anywhere, so rounding may turn a few that are at 1/2.
    assert (result == expected).mean() > 0.999
