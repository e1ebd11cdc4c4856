import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_panoptic_fpn.errors import DamagedFileError, DataError
from tf_panoptic_fpn.formats.images import (
    is_plain_label_png,
    read_header,
    read_image,
    read_label_map,
    read_label_png,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = PIXELS[..., 0]


def _save(path, mode, form, **options):
    array = GREY.astype(np.uint16) * 257 if mode == "I;16" else PIXELS
    image = Image.fromarray(array) if mode == "I;16" else Image.fromarray(array).convert(mode)
    image.save(path, form, **options)


@pytest.mark.parametrize(
    ("mode", "form", "is_plain"),
    [
        *((mode, "PNG", True) for mode in ("RGB", "L", "RGBA", "LA")),
        *((mode, "PNG", False) for mode in ("P", "1", "I;16")),
        *((mode, "JPEG", True) for mode in ("RGB", "L")),
        ("CMYK", "JPEG", False),
        ("RGB", "BMP", False),
        ("RGB", "TIFF", False),
    ],
)
def test_what_tensorflow_reads_alike(tmp_path, mode, form, is_plain):
    path = tmp_path / "image"
    _save(path, mode, form)
    header = read_header(path)
    assert (header.height, header.width, header.orientation) == (5, 7, 1)
    assert header.is_plain == is_plain
    if is_plain:
        content = tf.constant(path.read_bytes())
        decode = {
            "PNG": lambda: tf.io.decode_png(content, 3),
            "JPEG": lambda: tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"),
        }[form]
        np.testing.assert_array_equal(decode(), read_image(path))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_size_is_upright(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    _save(tmp_path / "image", "RGB", form, exif=exif)
    header = read_header(tmp_path / "image")
    assert header.orientation == (orientation if 1 <= orientation <= 8 else 1)
    assert (header.height, header.width) == read_image(tmp_path / "image").shape[:2]
    assert (header.height, header.width) == ((7, 5) if 5 <= orientation <= 8 else (5, 7))


def test_a_decompression_bomb_is_not_opened(tmp_path, monkeypatch):
    _save(tmp_path / "bomb.png", "RGB", "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 17)  # Pillow refuses twice as many
    for read in (read_header, read_image, read_label_png):
        with pytest.raises(DamagedFileError, match=r"bomb.png: .*exceeds limit of 34 pixels"):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("mode", "is_plain", "expected"),
    [("L", True, GREY), ("I;16", True, GREY.astype(int) * 257), ("P", False, GREY)],
)
def test_label_maps(tmp_path, mode, is_plain, expected):
    path = tmp_path / "map.png"
    if mode == "P":
        image = Image.fromarray(GREY, "P")
        image.putpalette(list(range(255, -1, -1)) * 3)
        image.save(path)
    else:
        Image.fromarray(expected.astype(np.uint16 if mode == "I;16" else np.uint8)).save(path)
    np.testing.assert_array_equal(read_label_png(path), expected)
    assert is_plain_label_png(path) == is_plain
    if is_plain:
        dtype = tf.uint16 if mode == "I;16" else tf.uint8
        decoded = tf.io.decode_png(tf.constant(path.read_bytes()), 1, dtype)
        np.testing.assert_array_equal(decoded[..., 0], expected)


@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [("RGB", "PNG", {}), ("1", "PNG", {}), ("L", "JPEG", {}), ("LA", "PNG", {})],
)
def test_other_images_are_no_label_maps(tmp_path, mode, form, options):
    _save(tmp_path / "map.png", mode, form, **options)
    with pytest.raises(DataError, match=rf"map.png: a label map must be .* Received: {form}, mode"):
        read_label_png(tmp_path / "map.png")


def test_a_grey_map_of_4_bits_is_refused(tmp_path):
    """Pillow would stretch its values from 0..15 to 0..255; by itself it writes 8 bits."""
    header = struct.pack(">IIBBBBB", 2, 2, 4, 0, 0, 0, 0)  # width, height, bits, grey
    rows = zlib.compress(bytes([0, 0x01, 0, 0x23]))  # a filter byte, and two pixels
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    (tmp_path / "map.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(DataError, match=r"Received: PNG, mode L, stored as L;4"):
        read_label_png(tmp_path / "map.png")
    with pytest.raises(DataError, match=r"Received: mode L, stored as L;4"):
        read_label_map(tmp_path / "map.png")
    assert not is_plain_label_png(tmp_path / "map.png")
