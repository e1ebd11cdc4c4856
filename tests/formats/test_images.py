import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pillow_resize import resize_image, resize_labels

from tf_panoptic_fpn.errors import DamagedFileError, DataError
from tf_panoptic_fpn.formats.images import read_image, read_label_png, resized_size
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png, write_panoptic_png

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", [200, 100, 50]),
        ("RGBA", [200, 100, 50]),
        ("L", [124, 124, 124]),  # (299 * 200 + 587 * 100 + 114 * 50) / 1000
        ("LA", [124, 124, 124]),
        ("P", [200, 100, 50]),
        ("CMYK", [200, 100, 50]),
    ],
)
def test_read_image_converts_every_mode_to_rgb(tmp_path, mode, expected):
    image = Image.new("RGB", (4, 3), (200, 100, 50))
    image = image.quantize(4) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)
    image.save(tmp_path / "image.tiff")
    read = read_image(tmp_path / "image.tiff")
    assert read.shape == (3, 4, 3)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.broadcast_to(expected, (3, 4, 3)))


def test_read_image_converts_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png").tolist() == [[[255] * 3, [0] * 3]]


def test_read_image_scales_16_bit_grey_to_8_bit(tmp_path):
    Image.fromarray(np.array([[0, 256, 32896, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 0, 128, 255]


def test_read_image_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(RGB, -1))


def _truncated(path, format_):
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(noise).save(path, format=format_)
    path.write_bytes(path.read_bytes()[:2000])


def _spoil(path, how):
    if how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("no image\nat all")
    elif how == "float":
        Image.fromarray(np.ones((3, 4), np.float32)).save(path, format="TIFF")
    elif how.startswith("truncated"):
        _truncated(path, how.split()[1])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", "is missing"),
        ("empty", "is empty"),
        ("text", "cannot be decoded"),
        ("float", "floating-point"),
        ("truncated JPEG", "truncated"),
        ("truncated PNG", "truncated"),
    ],
)
def test_read_image_names_the_bad_file_in_one_line(tmp_path, how, reason):
    path = tmp_path / "bad.image"
    _spoil(path, how)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_image, read_label_png])
def test_damaged_bytes_name_no_file(read):
    with pytest.raises(DamagedFileError, match=r"^the (image|label map) cannot be decoded: "):
        read(io.BytesIO(b"no image"))


@pytest.mark.parametrize("how", ["missing", "empty", "text", "truncated PNG"])
def test_read_panoptic_png_names_the_bad_file(tmp_path, how):
    path = tmp_path / "bad.png"
    _spoil(path, how)
    with pytest.raises(DataError, match=r"bad.png: the panoptic map .*(missing|empty|decoded)"):
        read_panoptic_png(path)


def test_read_image_refuses_a_decompression_bomb(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"bomb.png.*decompression bomb"):
        read_image(tmp_path / "bomb.png")


def test_panoptic_ids_are_base_256(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3], [0, 0, 0]]], np.uint8)).save(tmp_path / "map.png")
    ids = read_panoptic_png(tmp_path / "map.png")
    assert ids.tolist() == [[1 + 2 * 256 + 3 * 65536, 0]]
    assert ids.dtype == np.int32


@settings(max_examples=20, deadline=None)
@given(
    ids=hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(0, 2**24 - 1),
    )
)
def test_write_panoptic_png_is_the_inverse(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("map") / "map.png"
    write_panoptic_png(ids, path)
    np.testing.assert_array_equal(read_panoptic_png(path), ids)


@pytest.mark.parametrize("ids", [[[-1]], [[1 << 24]], [1, 2]])
def test_write_panoptic_png_refuses_what_does_not_fit(tmp_path, ids):
    with pytest.raises(ValueError, match="must be"):
        write_panoptic_png(ids, tmp_path / "map.png")


@pytest.mark.parametrize(("mode", "format_"), [("L", "PNG"), ("P", "PNG"), ("RGB", "JPEG")])
def test_panoptic_map_must_be_an_rgb_png(tmp_path, mode, format_):
    Image.new(mode, (4, 3)).save(tmp_path / "map.png", format=format_)
    with pytest.raises(DataError, match=f"map.png: .*RGB PNG. Received: {format_}, mode {mode}"):
        read_panoptic_png(tmp_path / "map.png")


@pytest.mark.parametrize("short_side", [800, 640])
def test_resized_size_equals_detectron2(goldens_dir, short_side):
    units = np.load(goldens_dir / "units.npz")
    sizes = [resized_size(int(h), int(w), short_side, 1333) for h, w in units["shortest_edge_in"]]
    np.testing.assert_array_equal(sizes, units[f"shortest_edge_{short_side}_1333"])


@settings(deadline=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    short_side=st.integers(1, 900),
    extra=st.integers(0, 900),
)
def test_resized_size_keeps_its_limits(height, width, short_side, extra):
    longest = short_side + extra
    size = resized_size(height, width, short_side, longest)
    assert 1 <= min(size) <= short_side
    assert max(size) <= longest
    assert min(size) == short_side or max(size) == longest
    assert (size[0] <= size[1]) == (height <= width) or size[0] == size[1]


@pytest.mark.parametrize("size", [(64, 100), (20, 31)])
def test_resize_image_equals_pil_bilinear(goldens_dir, size):
    units = np.load(goldens_dir / "units.npz")
    expected = units["pil_{}x{}".format(*size)]
    np.testing.assert_array_equal(resize_image(units["pil_in"], size), expected)


@settings(deadline=None)
@given(
    labels=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    size=st.tuples(st.integers(1, 25), st.integers(1, 25)),
)
def test_resize_labels_takes_the_pixel_under_each_new_centre(labels, size):
    centres = [
        np.divmod((2 * np.arange(new) + 1) * old, 2 * new)
        for new, old in zip(size, labels.shape, strict=True)
    ]
    (rows, y_rest), (columns, x_rest) = centres
    # Where a centre falls on a border between two pixels, either is the nearest.
    clear = np.ix_(y_rest > 0, x_rest > 0)
    resized = resize_labels(labels, size)
    assert resized.shape == size
    np.testing.assert_array_equal(resized[clear], labels[rows][:, columns][clear])
