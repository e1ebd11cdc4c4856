"""The fast reader of panoptic PNGs against Pillow."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.panoptic_png import (
    read_panoptic_ids,
    read_panoptic_png,
    write_panoptic_png,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, width, height, depth=8, color_type=2, interlace=0, parts=1):
    """A PNG of rows that are filtered already."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlace)
    data = zlib.compress(rows)
    size = -(-len(data) // parts)
    idat = [chunk(b"IDAT", data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join([SIGNATURE, chunk(b"IHDR", header), *idat, chunk(b"IEND", b"")])


@settings(max_examples=100, deadline=None)
@given(
    st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 7), st.just(3))),
    st.data(),
)
def test_every_filter(tmp_path_factory, filtered, data):
    """Whatever the bytes are, they are some image for each choice of the rows' filters."""
    height, width, _ = filtered.shape
    filters = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    rows = b"".join(bytes([f]) + row.tobytes() for f, row in zip(filters, filtered, strict=True))
    path = tmp_path_factory.getbasetemp() / "filters.png"
    path.write_bytes(png(rows, width, height, parts=data.draw(st.integers(1, 3))))
    ids = read_panoptic_ids(path)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, read_panoptic_png(path))


def test_ids_by_hand(tmp_path):
    rows = bytes([0, 1, 0, 0, 255, 255, 255, 0, 0, 0, 0, 2, 1, 0])
    (tmp_path / "a.png").write_bytes(png(rows, 2, 2))
    assert read_panoptic_ids(tmp_path / "a.png").tolist() == [[1, 2**24 - 1], [0, 258]]


def test_more_than_one_stored_block(tmp_path):
    ids = np.random.default_rng(0).integers(0, 1 << 24, (200, 300), np.int32)
    write_panoptic_png(ids, tmp_path / "a.png")
    np.testing.assert_array_equal(read_panoptic_ids(tmp_path / "a.png"), ids)


def test_alpha_is_left_out(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (5, 4, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = rgba[..., :3].astype(np.int32) @ [1, 256, 65536]
    np.testing.assert_array_equal(read_panoptic_ids(tmp_path / "a.png"), expected)


def test_real_maps(samples):
    for path in sorted((samples / "coco_panoptic_2" / "panoptic").glob("*.png")):
        np.testing.assert_array_equal(read_panoptic_ids(path), read_panoptic_png(path))


def test_interlaced_maps_are_read_all_the_same(tmp_path):
    (tmp_path / "a.png").write_bytes(png(bytes([0, 7, 1, 0]), 1, 1, interlace=1))
    assert read_panoptic_ids(tmp_path / "a.png").tolist() == [[263]]


@pytest.mark.parametrize(
    ("depth", "color_type", "message"),
    [(16, 2, "16-bit RGB"), (8, 3, "8-bit palette"), (16, 0, "16-bit grey"), (1, 0, "1-bit grey")],
)
def test_other_kinds_of_png(tmp_path, depth, color_type, message):
    (tmp_path / "a.png").write_bytes(png(bytes(7), 1, 1, depth, color_type))
    with pytest.raises(DataError, match=rf"a.png: .* 8-bit RGB PNG. Received: {message}"):
        read_panoptic_ids(tmp_path / "a.png")


@pytest.mark.parametrize("damage", ["cut", "half", "empty", "bit", "rows", "filter", "text"])
def test_damaged_files(tmp_path, damage):
    rows = np.random.default_rng(0).integers(0, 256, (20, 61), np.uint8)
    rows[:, 0] = 5 if damage == "filter" else 0
    data = png(rows.tobytes(), 20, 30 if damage == "rows" else 20)
    data = {
        "cut": data[:-40],
        "half": data[: len(data) // 2],
        "empty": b"",
        "bit": data[:100] + bytes([data[100] ^ 1]) + data[101:],
        "text": b"GIF",
    }.get(damage, data)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png"):
        read_panoptic_ids(tmp_path / "a.png")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: the panoptic map file is missing"):
        read_panoptic_ids(tmp_path / "a.png")
