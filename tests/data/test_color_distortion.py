import colorsys

import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn.data.color_distortion import distort_color

OFF, ON, FIRST, LAST = 0.9, 0.1, 0.2, 0.8


def _draws(amounts=(0.5,) * 4, on=(), contrast=FIRST):
    return tf.constant([*amounts, *(ON if i in on else OFF for i in range(4)), contrast])


def _by_hand(pixel, amounts, on, contrast):
    """The same on one pixel with Python's colour conversion; amounts in [-1, 1)."""
    rgb = np.array(pixel) / 255

    def clipped(values):
        return np.clip(values, 0, 1)

    def in_hsv(values, factor, turn):
        hue, saturation, value = colorsys.rgb_to_hsv(*values)
        saturation = min(saturation * factor, 1)
        return np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))

    if 0 in on:
        rgb = clipped(rgb + amounts[0] * 32 / 255)
    if 1 in on and contrast == FIRST:
        rgb = clipped(rgb * (1 + 0.5 * amounts[1]))
    if 2 in on:
        rgb = in_hsv(rgb, 1 + 0.5 * amounts[2], 0)
    if 3 in on:
        rgb = in_hsv(rgb, 1, 0.1 * amounts[3])
    if 1 in on and contrast == LAST:
        rgb = clipped(rgb * (1 + 0.5 * amounts[1]))
    return rgb * 255


@pytest.mark.parametrize("on", [(), (0,), (1,), (2,), (3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("contrast", [FIRST, LAST])
def test_each_distortion_by_hand(on, contrast):
    pixels = [(10, 200, 90), (250, 240, 5), (128, 128, 128), (0, 30, 255)]
    for amounts in ((0.9, 0.8, 0.7, -0.6), (-0.9, -0.5, -0.9, 0.9)):
        draws = _draws([(a + 1) / 2 for a in amounts], on, contrast)
        image = distort_color(tf.constant([pixels], tf.uint8), draws).numpy()[0]
        expected = [_by_hand(pixel, amounts, on, contrast) for pixel in pixels]
        np.testing.assert_allclose(image, expected, atol=0.6)
        if not on:
            np.testing.assert_array_equal(image, pixels)
