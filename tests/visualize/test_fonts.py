"""Names in any script: which font draws them, and what stands in for them."""

import logging
import pathlib
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from tf_panoptic_fpn.categories import Category
from tf_panoptic_fpn.visualize import fonts
from tf_panoptic_fpn.visualize.labels import label_size, label_text

DEJAVU = pathlib.Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
needs_font = pytest.mark.skipif(not DEJAVU.exists(), reason="DejaVu Sans is not installed")


@pytest.fixture
def no_fonts(monkeypatch):
    """Pillow's own font is the only one."""
    caches = fonts._font_path, fonts._has, fonts._warn

    def forget():
        for cache in caches:
            cache.cache_clear()
        fonts._found.clear()

    monkeypatch.delenv(fonts.FONT_VARIABLE, raising=False)
    monkeypatch.setattr(fonts, "_installed", lambda _: [])
    forget()
    yield
    forget()


@pytest.fixture
def dejavu(no_fonts, monkeypatch):
    monkeypatch.setenv(fonts.FONT_VARIABLE, str(DEJAVU))


def name_of(name, category_id=7):
    return fonts.drawable_name(Category(category_id, name, True))


def test_ascii_names_are_drawn_as_ever(no_fonts):
    font = ImageFont.load_default(16)
    for name in ("car", "traffic light", "potted-plant (2)"):
        assert name_of(name) == name
        assert fonts.text_length(name, 16) == font.getlength(name)
    assert fonts.text_metrics(16) == font.getmetrics()
    canvases = [Image.new("RGB", (80, 30), "white") for _ in range(2)]
    fonts.draw_text(ImageDraw.Draw(canvases[0]), (40, 15), "car 9%", (0, 0, 0), 16)
    draw = ImageDraw.Draw(canvases[1])
    draw.text((40, 15), "car 9%", fill=(0, 0, 0), font=font, anchor="mm")
    assert canvases[0].tobytes() == canvases[1].tobytes()


@pytest.mark.parametrize(
    ("name", "script", "package"),
    [
        ("кот", "cyrillic", "fonts-noto-core"),
        ("café", "latin", "fonts-noto-core"),
        ("汽车", "cjk", "fonts-noto-cjk"),
        ("ねこ", "hiragana", "fonts-noto-cjk"),
        ("car كلب", "arabic", "fonts-noto-core"),
    ],
)
def test_a_number_stands_in_and_one_line_says_what_to_install(
    no_fonts, monkeypatch, caplog, name, script, package
):
    monkeypatch.setattr(features, "check", lambda _: True)
    with caplog.at_level(logging.WARNING):
        assert [name_of(name), name_of(name, 3000000000)] == ["category 7", "category 3000000000"]
    assert caplog.messages == [
        f"Category names are drawn as numbers, for want of a font with {script} letters: install "
        f"{package}, or name a font in the environment variable TF_PANOPTIC_FPN_FONT"
    ]
    assert label_text(Category(7, name, True), 0.87) == "category 7 87%"


def test_symbols_without_a_font_are_left_out(no_fonts, caplog):
    assert name_of("car \U0001f697") == "car"
    assert name_of("\U0001f697\ufe0f\u200d \U0001f697") == "category 7"
    assert not caplog.messages


def test_letters_from_right_to_left_need_a_layout(no_fonts, monkeypatch, caplog):
    monkeypatch.setattr(features, "check", lambda _: False)
    monkeypatch.setattr(fonts, "_font_path", lambda _: "")
    assert name_of("كلب") == "category 7"
    assert "for want of a layout from right to left: install libraqm" in caplog.messages[0]
    assert name_of("car") == "car"


@needs_font
def test_the_font_of_the_environment_is_taken_first(dejavu):
    font = ImageFont.truetype(str(DEJAVU), 20)
    for name in ("кот", "car"):
        assert name_of(name) == name
        assert fonts.text_length(name, 20) == font.getlength(name)
    canvases = [Image.new("L", (80, 30), "white") for _ in range(2)]
    fonts.draw_text(ImageDraw.Draw(canvases[0]), (40, 15), "кот", 0, 20)
    ImageDraw.Draw(canvases[1]).text((40, 15), "кот", fill=0, font=font, anchor="mm")
    assert np.asarray(canvases[0]).min() == 0
    assert canvases[0].tobytes() == canvases[1].tobytes()


@needs_font
def test_an_installed_font_is_found_and_parts_are_joined(no_fonts, monkeypatch):
    monkeypatch.setattr(fonts, "_installed", lambda _: ["/none.ttf", str(DEJAVU)])
    # What only the default font is asked for stays with it, and a text is one run if it can be.
    assert [part for part, _ in fonts._runs("кот 87%", 20)] == ["кот 87%"]
    monkeypatch.setattr(fonts, "_has", lambda path, c: (path == "") == c.isascii())
    fonts._font_path.cache_clear()
    assert [part for part, _ in fonts._runs("кот 87%", 20)] == ["кот", " 87%"]
    height, width = label_size("кот 87%", (400, 400))
    parts = ImageFont.truetype(str(DEJAVU), 13), ImageFont.load_default(13)
    expected = sum(f.getlength(t) for f, t in zip(parts, ("кот", " 87%"), strict=True))
    assert (height, width) == (sum(parts[1].getmetrics()) + 2, round(expected) + 4)


def test_fonts_are_sorted_upright_sans_first(monkeypatch, tmp_path):
    names = ["SerifBold.ttf", "Sans-Regular.ttf", "SansMono-Regular.ttf", "x.txt", "Sans-Bold.otf"]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(fonts.shutil, "which", lambda _: None)
    monkeypatch.setattr(fonts.sys, "platform", "other")
    monkeypatch.setattr(fonts, "_LINUX", (str(tmp_path),))
    found = [pathlib.Path(path).name for path in fonts._installed("c")]
    assert found == ["Sans-Regular.ttf", "SansMono-Regular.ttf", "Sans-Bold.otf", "SerifBold.ttf"]


@needs_font
def test_names_are_composed(dejavu):
    assert name_of(unicodedata.normalize("NFD", "café")) == "café"
