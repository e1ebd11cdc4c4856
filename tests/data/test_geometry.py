import numpy as np
import pillow_resize
import pytest
import tensorflow as tf

from tf_panoptic_fpn.config import AugmentConfig, SplitConfig
from tf_panoptic_fpn.data import geometry
from tf_panoptic_fpn.formats import images


def _geometry(source, resized, window=None, flip=False):
    window = (0, 0, *resized) if window is None else window
    return geometry.Geometry(
        tf.constant(source), tf.constant(resized), tf.constant(window), tf.constant(flip)
    )


@pytest.mark.parametrize(
    ("source", "resized", "window", "expected"),
    [
        ((2, 4), (8, 16), (0, 0, 8, 16), (0, 0, 2, 4)),
        ((2, 4), (8, 16), (4, 4, 8, 12), (1, 1, 2, 3)),
        # A quarter of row 0 and of column 3 is left, a pixel of the result: its centre is at .875,
        # and that of column 12 at 3.125.
        ((2, 4), (8, 16), (3, 2, 8, 13), (0, 0, 2, 4)),
        # From .8 to 3.2: no pixel is made of row 0, the last one is centred at 3.
        ((4, 4), (10, 10), (2, 2, 8, 8), (1, 1, 4, 4)),
        # Shrunk, the result takes rows 6 and 2 alone.
        ((8, 8), (2, 2), (1, 0, 2, 1), (4, 0, 8, 4)),
    ],
)
def test_pixels_that_a_window_shows(source, resized, window, expected):
    assert tuple(_geometry(source, resized, window).shown.numpy()) == expected


@pytest.mark.parametrize("source", [(480, 640), (640, 427), (333, 2000), (7, 5)])
@pytest.mark.parametrize("side", [640, 673, 800])
def test_draw_size_rounds_as_resized_size(source, side):
    split = SplitConfig(short_sides=(side,), max_long_side=1333)
    size = geometry.draw_size(tf.constant(source), split, AugmentConfig(), 0.3)
    assert tuple(size.numpy()) == images.resized_size(*source, side, 1333)


@pytest.mark.parametrize(
    ("settings", "draw", "expected"),
    [
        ({}, 0.0, (640, 1280)),
        ({}, 0.99, (800, 1600)),
        ({"short_side_sampling": "range"}, 0.5, (720, 1440)),  # the 81st of 161 sides
        ({"scale_range": (0.5, 2.0)}, 0.5, (500, 1000)),  # 1.25 x 400 x 800
        # The largest size that fits the crop is 500 x 1000.
        (
            {"scale_range": (0.1, 1.1), "scale_relative_to": "crop", "crop_size": (600, 1000)},
            0.5,
            (300, 600),
        ),
    ],
)
def test_draw_size_by_hand(settings, draw, expected):
    split = SplitConfig(short_sides=(640, 800), max_long_side=2000)
    size = geometry.draw_size(tf.constant((400, 800)), split, AugmentConfig(**settings), draw)
    assert tuple(size.numpy()) == expected


@pytest.mark.parametrize(
    ("draws", "focus", "expected"),
    [
        ((0.0, 0.0), None, (0, 0, 20, 30)),
        ((0.999999, 0.999999), None, (80, 0, 100, 30)),
        # Row 50 is in the crops that begin at 31..50; the width is not cut.
        ((0.0, 0.9), (True, (50, 7)), (31, 0, 51, 30)),
        ((0.999999, 0.9), (True, (50, 7)), (50, 0, 70, 30)),
        ((0.999999, 0.9), (True, (99, 7)), (80, 0, 100, 30)),
        ((0.0, 0.9), (False, (50, 7)), (0, 0, 20, 30)),
    ],
)
def test_draw_window_by_hand(draws, focus, expected):
    focus = focus and (tf.constant(focus[0]), tf.constant(focus[1]))
    window = geometry.draw_window(
        tf.constant((100, 30)), tf.constant((20, 40)), tf.constant(draws), focus
    )
    assert tuple(window.numpy()) == expected


def test_classes_are_drawn_alike_and_pixels_by_area():
    rectangles = tf.constant([[0, 0, 9, 9], [0, 9, 1, 10], [1, 9, 4, 10], [9, 9, 10, 10]])
    classes = tf.constant([5, 2, 2, -1])
    draw = tf.function(geometry.draw_pixel_of_class)
    rng = np.random.default_rng(0)
    pixels = []
    for _ in range(200):
        is_drawn, pixel = draw(rectangles, classes, tf.constant(rng.random(4), tf.float32))
        assert is_drawn
        pixels.append(tuple(pixel.numpy()))
    large = [pixel for pixel in pixels if pixel[1] < 9]
    # Half of the draws, though class 5 has 81 pixels against 4; 4 standard deviations are 28.
    assert 72 < len(large) < 128
    rows = np.array([row for row, column in pixels if column == 9])
    assert set(rows) == {0, 1, 2, 3}
    assert 0.15 < (rows == 0).mean() < 0.35
    assert max(row for row, _ in large) == 8


def test_no_class_to_draw():
    none = tf.zeros([0], tf.int32)
    is_drawn, _ = geometry.draw_pixel_of_class(
        tf.zeros([0, 4], tf.int32), none, tf.constant([0.9] * 4)
    )
    assert not is_drawn


@pytest.mark.parametrize("resized", [(40, 60), (75, 100), (29, 41), (90, 33)])
@pytest.mark.parametrize("window", [None, (3, 2, 25, 31)])
def test_resize_image_equals_pillow_to_a_level(resized, window):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for flip in (False, True):
        drawn = _geometry((40, 60), resized, window, flip)
        y1, x1, y2, x2 = drawn.window.numpy()
        expected = pillow_resize.resize_image(image, resized)[y1:y2, x1:x2].astype(int)
        resized_image = geometry.resize_image(tf.constant(image), drawn).numpy()
        assert np.abs(resized_image - (expected[:, ::-1] if flip else expected)).max() <= 1


@pytest.mark.parametrize("size", [(64, 100), (20, 31)])
def test_resize_image_equals_detectron2s_to_a_level(goldens_dir, size):
    units = np.load(goldens_dir / "units.npz")
    expected = units["pil_{}x{}".format(*size)].astype(int)
    resized = geometry.resize_image(tf.constant(units["pil_in"]), _geometry((48, 75), size))
    assert np.abs(resized.numpy() - expected).max() <= 1


def test_runs_are_painted_as_the_map_is_resized():
    labels = np.random.default_rng(1).integers(0, 256, (6, 9)).astype(np.uint8)
    labels = labels.repeat(3, 1)
    rectangles = [[y, 3 * x, y + 1, 3 * x + 3] for y in range(6) for x in range(9)]
    values = labels[:, ::3].ravel().astype(np.int32)
    for flip in (False, True):
        drawn = _geometry((6, 27), (11, 40), (2, 5, 9, 33), flip)
        painted = geometry.paint_runs(tf.constant(rectangles), tf.constant(values), drawn)
        np.testing.assert_array_equal(painted, geometry.resize_labels(tf.constant(labels), drawn))
    whole = geometry.resize_labels(tf.constant(labels), _geometry((6, 27), (10, 40)))
    np.testing.assert_array_equal(whole, pillow_resize.resize_labels(labels, (10, 40)))


def test_resize_boxes_by_hand():
    drawn = _geometry((10, 20), (30, 40), (6, 10, 26, 30), flip=True)
    boxes = geometry.resize_boxes(tf.constant([[3.0, 6.0, 8.0, 12.0]]), drawn)
    # Scaled [9, 12, 24, 24], cut out [3, 2, 18, 14], mirrored in 20 columns.
    np.testing.assert_allclose(boxes, [[3, 6, 18, 18]], rtol=1e-6)


def test_largest_size():
    sizes = np.array([[480, 640], [427, 640]])
    split = SplitConfig(short_sides=(640, 800), max_long_side=1333)
    assert geometry.largest_size(sizes, split, AugmentConfig()) == (800, 1199)
    scaled = AugmentConfig(scale_range=(0.5, 2.0), crop_size=(512, 1400))
    assert geometry.largest_size(sizes, split, scaled) == (512, 1280)
