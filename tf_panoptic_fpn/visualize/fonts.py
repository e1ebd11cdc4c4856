"""Text in any script: fonts that have its letters, among those installed."""

import functools
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import unicodedata
from typing import Any

from PIL import ImageDraw, ImageFont, features

from tf_panoptic_fpn.categories import Category
from tf_panoptic_fpn.visualize.colors import RGB

FONT_VARIABLE = "TF_PANOPTIC_FPN_FONT"  # paths of fonts to take first, as in PATH
_ABSENT = "\U0010ffff"  # a code point that is no character: fonts draw their box for it
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
_LINUX = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_PACKAGES = {"CJK": "fonts-noto-cjk", "HIRAGANA": "fonts-noto-cjk", "HANGUL": "fonts-noto-cjk"}
_TRY_SIZE = 16
_logger = logging.getLogger(__name__)
_found: list[str] = []  # fonts that had a character; the next character is likely in one of them


def drawable_name(category: Category) -> str:
    """Returns what pictures call a category: its name, as far as fonts have its letters.

    Symbols that no font has, such as emoji, are left out. Where a letter has none, or letters from
    right to left cannot be laid out, it is `category 7`, and the log says once what to install.

    Args:
        category: a `Category`.
    """
    name = unicodedata.normalize("NFC", category.name)
    lacking = {c for c in name if _font_path(c) is None}
    letters = sorted(c for c in lacking if unicodedata.category(c)[0] in "LNM")
    rest = " ".join("".join(c for c in name if c not in lacking).split())
    if _is_leftward(name) and not features.check("raqm"):
        _warn("a layout from right to left", "libraqm and libfribidi")
    elif letters:
        script = unicodedata.name(letters[0], "").split(" ")[0]
        package = _PACKAGES.get(script, "fonts-noto-core")
        _warn(f"a font with {script.lower() or 'all'} letters", package)
    elif not all(map(_is_blank, rest)):
        return rest
    return f"category {category.id}"


def text_length(text: str, size: float) -> float:
    """Returns the width in pixels of a text at a font size."""
    return sum(font.getlength(part) for part, font in _runs(text, size))


def text_metrics(size: float) -> tuple[int, int]:
    """Returns the pixels above and below the base line at a font size."""
    return _load("", size).getmetrics()


def draw_text(
    draw: ImageDraw.ImageDraw,
    center: tuple[float, float],
    text: str,
    fill: RGB,
    size: float,
) -> None:
    """Draws a text, centred.

    Args:
        draw: `PIL.ImageDraw.ImageDraw`.
        center: (x, y), pixels.
        text: str; letters that no font has are drawn as the box of the default font.
        fill: (R, G, B).
        size: font size.
    """
    runs = _runs(text, size)
    if len(runs) == 1:
        draw.text(center, text, fill=fill, font=runs[0][1], anchor="mm")
        return
    x = center[0] - text_length(text, size) / 2
    for part, font in runs:
        draw.text((x, center[1]), part, fill=fill, font=font, anchor="lm")
        x += font.getlength(part)


def _runs(text: str, size: float) -> list[tuple[str, Any]]:
    """A list of (part of the text, font)."""
    paths = [_font_path(c) or "" for c in text]
    for path in dict.fromkeys(paths):  # one font for all of it, if there is one
        if all(_is_blank(c) or _has(path, c) for c in text):
            return [(text, _load(path, size))]
    parts: list[list[str]] = []
    for c, path in zip(text, paths, strict=True):
        if parts and (parts[-1][1] == path or (_is_blank(c) and not c.isspace())):
            parts[-1][0] += c
        else:
            parts.append([c, path])
    return [(part, _load(path, size)) for part, path in parts]


def _is_blank(character: str) -> bool:
    """Whether a character has no picture of its own: spaces, joiners, variation selectors."""
    is_selector = "\ufe00" <= character <= "\ufe0f"
    return character.isspace() or is_selector or unicodedata.category(character) == "Cf"


@functools.cache
def _font_path(character: str) -> str | None:
    """The first font that has a character; "" for Pillow's own, None where none has it."""
    given = [path for path in os.environ.get(FONT_VARIABLE, "").split(os.pathsep) if path]
    for path in (*given, "", *_found):
        if _is_blank(character) or _has(path, character):
            return path
    for path in _installed(character):
        if _has(path, character):
            _found.append(path)
            return path
    return None


@functools.cache
def _has(path: str, character: str) -> bool:
    try:
        font = _load(path, _TRY_SIZE)
        mask, absent = font.getmask(character), font.getmask(_ABSENT)
        return (mask.size, bytes(mask)) != (absent.size, bytes(absent)) and bool(mask.getbbox())
    except OSError:  # no font, or one of bitmaps in another size
        return False


@functools.lru_cache(maxsize=64)
def _load(path: str, size: float) -> Any:
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _installed(character: str) -> list[str]:
    """Paths of fonts: those that fontconfig has for a character, else all of the usual folders."""
    program = shutil.which("fc-list")
    if program:
        pattern = f":charset={ord(character):x}"
        listed = subprocess.run(
            [program, "--format=%{file}\n", pattern], capture_output=True, check=False
        )
        paths = listed.stdout.decode(errors="replace").split("\n")
    else:
        folders = map(os.path.expanduser, _FOLDERS.get(sys.platform, _LINUX))
        paths = [str(path) for folder in folders for path in pathlib.Path(folder).rglob("*")]
    fonts = {path for path in paths if path.lower().endswith(_SUFFIXES)}
    return sorted(fonts, key=_plainness)


def _plainness(path: str) -> tuple[bool, bool, bool, int, str]:
    """Sorts upright sans-serif fonts of normal weight first."""
    name = os.path.basename(path).lower()
    return ("regular" not in name, "sans" not in name, "mono" in name, len(name), name)


def _is_leftward(text: str) -> bool:
    return any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


@functools.cache
def _warn(what: str, install: str) -> None:
    _logger.warning(
        "Category names are drawn as numbers, for want of %s: install %s, or name a font in the "
        "environment variable %s",
        what,
        install,
        FONT_VARIABLE,
    )
