import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_panoptic_fpn.data.decode import (
    decode_id_map,
    decode_image,
    decode_plain_image,
    exif_orientation,
)
from tf_panoptic_fpn.formats.images import read_header, read_image


def _decoded(path):
    header = read_header(path)
    data = tf.io.read_file(str(path))
    orientation = tf.constant(header.orientation, tf.uint8)
    return decode_image(data, orientation, tf.constant(not header.is_plain)).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_comes_out_upright(tmp_path, orientation):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    image.save(path, exif=exif, quality=95)
    np.testing.assert_array_equal(_decoded(path), read_image(path))
    data = tf.io.read_file(str(path))
    assert exif_orientation(data).numpy() == orientation
    served = tf.function(lambda d: decode_plain_image(d, exif_orientation(d)))(data)
    np.testing.assert_array_equal(served, read_image(path))


EXIF = b"Exif\0\0"
BIG_ENDIAN = b"MM\0*\0\0\0\x08\0\x02" + b"\x01\x00\0\x03\0\0\0\x01\0\x07\0\0"
BIG_ENDIAN += b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (EXIF + BIG_ENDIAN, 6),
        (EXIF + BIG_ENDIAN[:10], 1),  # the directory is cut short
        (EXIF + BIG_ENDIAN.replace(b"\0\x06\0\0", b"\0\x09\0\0"), 1),  # no orientation is 9
        (EXIF + BIG_ENDIAN.replace(b"\0\0\0\x08", b"\xff\xff\xff\xff"), 1),  # beyond the end
        (EXIF + b"MM", 1),
        (b"", 1),
    ],
)
def test_orientation_of_any_header(exif, orientation):
    data = io.BytesIO()
    Image.new("RGB", (8, 6)).save(data, format="JPEG", exif=exif)
    assert exif_orientation(tf.constant(data.getvalue())).numpy() == orientation
    assert exif_orientation(tf.constant(b"")).numpy() == 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "I;16", "1"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_every_mode_as_pillow_reads_it(tmp_path, mode, suffix):
    unknown = {"jpg": ("LA", "RGBA", "P", "I;16", "1"), "bmp": ("LA", "RGBA", "CMYK", "I;16")}
    if mode in unknown.get(suffix, ("CMYK",)):
        return
    values = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    image = Image.fromarray(values)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(values[..., 1]))
    else:
        image = image.convert(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    path = path.rename(tmp_path / "name.tells.nothing")
    np.testing.assert_array_equal(_decoded(path), read_image(path))


def test_real_images(samples):
    paths = sorted((samples / "coco_instances" / "images").iterdir())[::6]
    assert len(paths) == 10
    for path in paths:
        np.testing.assert_array_equal(_decoded(path), read_image(path))


def _png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="PNG")
    return tf.constant(data.getvalue())


@pytest.mark.parametrize("with_pillow", [False, True])
def test_id_maps(with_pillow):
    ids = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]])
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    with_pillow = tf.constant(with_pillow)
    np.testing.assert_array_equal(decode_id_map(_png(rgb), "rgb", with_pillow), ids)
    for dtype in (np.uint8, np.uint16):
        grey = np.array([[0, 1, 254], [255, 128, np.iinfo(dtype).max]], dtype)
        np.testing.assert_array_equal(decode_id_map(_png(grey), "grey", with_pillow), grey)
