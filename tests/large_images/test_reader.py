"""Windows of images of every kind are those of the whole image, and little is held of a file."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from tf_panoptic_fpn.errors import ConfigError, DamagedFileError, DataError
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.large_images import reader
from tf_panoptic_fpn.large_images.reader import open_large_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (70, 90, 3)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (70, 90)).astype(np.uint16)
WINDOWS = ((0, 70, 0, 90), (16, 33, 47, 90), (69, 70, 0, 1), (5, 40, 31, 32))
GREY = np.repeat(RGB[..., :1], 3, axis=2)
PALETTE = RNG.integers(0, 256, (3, 256)).astype(np.uint16) * 257


def check(path, expected, **kwargs):
    with open_large_image(path, **kwargs) as image:
        assert image.shape == expected.shape[:2]
        for top, bottom, left, right in WINDOWS:
            window = image.read(top, bottom, left, right)
            assert window.dtype == np.uint8
            np.testing.assert_array_equal(window, expected[top:bottom, left:right])


@pytest.mark.parametrize(
    ("pixels", "options", "expected"),
    [
        (RGB, {}, RGB),
        (RGB, {"byteorder": ">", "bigtiff": True}, RGB),
        (RGB, {"tile": (32, 16), "compression": "zlib"}, RGB),
        (RGB, {"rowsperstrip": 7, "compression": "lzw"}, RGB),
        (np.moveaxis(RGB, -1, 0), {"planarconfig": "separate", "tile": (16, 16)}, RGB),
        (np.concatenate([RGB, RGB[..., :1]], axis=2), {"extrasamples": ["unassalpha"]}, RGB),
        (RGB[..., 0], {"photometric": "minisblack", "tile": (16, 16)}, GREY),
        (RGB[..., 0], {"photometric": "miniswhite"}, 255 - GREY),
        (RGB[..., 0] > 127, {"photometric": "minisblack"}, np.where(GREY > 127, 255, 0)),
        (
            RGB[..., 0],
            {"photometric": "palette", "colormap": PALETTE},
            (PALETTE.T // 257)[RGB[..., 0]],
        ),
        (np.moveaxis(RGB, -1, 0), {"ome": True, "metadata": {"axes": "CYX"}}, RGB),
    ],
)
def test_windows_of_a_tiff(tmp_path, pixels, options, expected):
    path = tmp_path / "image.tif"
    kind = {} if pixels.ndim == 2 or "ome" in options else {"photometric": "rgb"}
    tifffile.imwrite(path, pixels, **kind, **options)
    check(path, expected)


def test_windows_of_a_jpeg_in_a_tiff(tmp_path):
    path = tmp_path / "slide.tif"
    smooth = np.linspace(40, 200, 70 * 90).reshape(70, 90)
    pixels = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=-1).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32), compression="jpeg")
    with open_large_image(path) as image:
        window = image.read(10, 60, 20, 80)
    assert np.abs(window.astype(int) - pixels[10:60, 20:80]).mean() < 2


@pytest.mark.parametrize("pixel_range", [(0, 65535), (1000, 21000)])
def test_16_bits_become_8_as_in_every_image(tmp_path, pixel_range):
    Image.fromarray(GREY16).save(tmp_path / "image.png")
    expected = read_image(tmp_path / "image.png", pixel_range)
    for name, options in {"a.tif": {}, "b.tif": {"tile": (16, 16), "compression": "zlib"}}.items():
        tifffile.imwrite(tmp_path / name, GREY16, photometric="minisblack", **options)
        check(tmp_path / name, expected, pixel_range=pixel_range)
    check(tmp_path / "image.png", expected, pixel_range=pixel_range)


def test_of_a_pyramid_the_full_resolution_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.tif") as file:
        options = {"photometric": "rgb", "tile": (16, 16)}
        file.write(RGB, subifds=1, **options)
        file.write(RGB[::2, ::2], subfiletype=1, **options)
    check(tmp_path / "slide.tif", RGB)


def test_pieces_are_decoded_once_and_few_are_held(tmp_path, monkeypatch):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    monkeypatch.setattr(reader, "CACHED_BYTES", 12 * 16 * 16 * 3)  # two rows of pieces
    with open_large_image(path) as image:
        for _ in range(3):
            for left in range(0, 80, 20):
                image.read(0, 32, left, left + 30)
        info = image._piece.cache_info()
    assert (info.misses, info.maxsize) == (12, 12)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (
            RGB,
            {"compression": "zlib", "rowsperstrip": 70},
            r"in tiles or strips.*of 0 MiB",
        ),
        (np.zeros((2, 70, 90), np.uint8), {}, "must hold one image.*the axes QYX, of .2, 70, 90"),
        (np.zeros((70, 90), np.float32), {}, "8 or 16 bits. Received: float32"),
        (np.zeros((70, 90, 4), np.uint8), {"photometric": "separated"}, "SEPARATED of 4 channel"),
        (RGB, {"extratags": [(274, "H", 1, 6, True)]}, "upright. Received: the orientation 6"),
    ],
)
def test_what_is_not_read_in_windows(tmp_path, monkeypatch, pixels, options, message):
    monkeypatch.setattr(reader, "CACHED_BYTES", 10000)
    path = tmp_path / "image.tif"
    kind = {"photometric": "rgb" if pixels.shape[-1] == 3 else "minisblack"}
    tifffile.imwrite(path, pixels, **{**kind, **options})
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*{message}"):
        open_large_image(path)


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[7]
    path.write_bytes(whole[:offset] + bytes(40) + whole[offset + 40 :])
    with (
        open_large_image(path) as image,
        pytest.raises(DamagedFileError, match=r"image\.tif: the image cannot be decoded"),
    ):
        image.read(0, 70, 0, 90)
    for content in (whole[:6], b"II*\0", b"", b"nothing"):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"image\.tif: the image"):
            open_large_image(path)
    with pytest.raises(DamagedFileError, match="is missing"):
        open_large_image(tmp_path / "absent.tif")


def test_a_picture_beyond_pillows_limit(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "image.png")
    check(tmp_path / "image.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(DataError, match=r"more than 6000 pixels must be a TIFF"):
        open_large_image(tmp_path / "image.png")


def test_without_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, RGB, photometric="rgb")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(ConfigError, match=r"pip install 'tf-panoptic-fpn\[large\]'"):
        open_large_image(path)
