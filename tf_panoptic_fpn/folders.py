"""What lies in a folder: files by their names, and one line for each kind that is not read."""

import collections
import os
from collections.abc import Iterable, Sequence

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.messages import plural

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Kinds of image that Pillow reads with a plugin, which registers itself when it is imported.
_PLUGINS = {
    ".heic": "pillow-heif",
    ".heif": "pillow-heif",
    ".jxl": "pillow-jxl-plugin",
    ".avif": "Pillow 11.3 or newer, or pillow-avif-plugin",
    ".dng": "no plugin of Pillow; rawpy",
    ".cr2": "no plugin of Pillow; rawpy",
    ".cr3": "no plugin of Pillow; rawpy",
    ".nef": "no plugin of Pillow; rawpy",
    ".arw": "no plugin of Pillow; rawpy",
    ".dcm": "no plugin of Pillow; pydicom",
}
_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini")


def list_files(folder: str | os.PathLike) -> list[str]:
    """Sorted list of the paths below a folder, in it and in its folders, with `/`.

    Hidden files, and those that an operating system leaves behind, are no files here.

    Raises:
        DataError: if the folder does not exist.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder")
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and name.lower() not in _OF_THE_SYSTEM
    )


def files_by_stem(
    folder: str | os.PathLike, extensions: Sequence[str], clash: str = "two files of one name"
) -> dict[str, str]:
    """Dict: path below a folder without its extension -> path below the folder.

    Args:
        folder: path, read with its subfolders.
        extensions: lower-case endings such as ".png".
        clash: what two files are that differ in the extension only.

    Raises:
        DataError: if the folder does not exist, or two such files are there.
    """
    files: dict[str, str] = {}
    for path in list_files(folder):
        stem, extension = os.path.splitext(path)
        if extension.lower() not in extensions:
            continue
        if stem in files:
            raise DataError(f"{folder}: {clash}: {files[stem]}, {path}")
        files[stem] = path
    return files


def unread_kinds(names: Iterable[str], extensions: Sequence[str]) -> list[str]:
    """One line for each kind of file that is not read, with what would read it.

    Args:
        names: paths of files.
        extensions: lower-case endings that are read.

    Returns:
        List of str, the most frequent kind first.
    """
    kinds, no_suffix = collections.defaultdict(list), "suffixless"
    for name in names:
        kind = os.path.splitext(name)[1].lower()
        if kind not in extensions:
            kinds[kind].append(name)
    return [
        f"{plural(len(found), f'{kind or no_suffix} file')}, e.g. {found[0]}: {_reason(kind)}"
        for kind, found in sorted(kinds.items(), key=lambda entry: -len(entry[1]))
    ]


def _reason(kind):
    if kind in _PLUGINS:
        return f"needs a plugin ({_PLUGINS[kind]})"
    return "no kind of file that is read here"
