"""Reading YOLO's folders of outlines: `data.yaml` or `classes.txt`, images and label files."""

import dataclasses
import math
import os
import pathlib

import yaml

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.folders import list_files
from tf_panoptic_fpn.formats.png_pairs import IMAGE_EXTENSIONS

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
_NAME_FILES = ("classes.txt", "obj.names")
_FARTHEST = 2.0  # an outline may leave the image a little; what is far outside is in pixels


@dataclasses.dataclass(frozen=True)
class YoloImage:
    """One image: its path, that of its label file, which need not exist, and its split or None."""

    image_path: str
    label_path: str
    split: str | None


def find_yolo_file(folder):
    """Returns the path of the file of a folder that names YOLO's classes, or None."""
    for path in sorted(pathlib.Path(folder).glob("*.y*ml")):
        tree = _yaml(path)
        if isinstance(tree, dict) and "names" in tree and _SPLITS.keys() & tree.keys():
            return str(path)
    for name in _NAME_FILES:
        path = pathlib.Path(folder, name)
        if path.is_file() and any(pathlib.Path(folder).rglob("labels")):
            return str(path)
    return None


def read_yolo_names(path):
    """Reads the names of the classes.

    Args:
        path: a YAML file with `names`, a list or a dict by class, or a text file, one name a line.

    Returns:
        Dict: class -> name.

    Raises:
        DataError: if the file cannot be read, or has no such names.
    """
    if pathlib.Path(path).suffix in (".txt", ".names"):
        lines = (line.strip() for line in _text(path).splitlines())
        return dict(enumerate(line for line in lines if line))
    tree = _yaml(path)
    names = tree.get("names") if isinstance(tree, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not names or not isinstance(names, dict) or not all(type(c) is int for c in names):
        raise DataError(f"{path}: `names` must list the classes. Received: {names!r:.80}")
    return {number: str(name) for number, name in names.items()}


def find_yolo_images(path):
    """Finds the images that a YOLO folder has, with their label files.

    Labels lie where `labels` takes the place of `images` in the path of the image, or beside it.

    Args:
        path: the file of the classes; the splits are those that a YAML file names, relative to its
            `path` or to its folder. Without, all images of the folder are of one split.

    Returns:
        List of `YoloImage`.

    Raises:
        DataError: if there is no image, or a split that is named is not there.
    """
    folder = os.path.dirname(os.path.abspath(path))
    tree = _yaml(path) if path.endswith(("yaml", "yml")) else {}
    images = []
    for key, split in _SPLITS.items():
        entries = tree.get(key) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            place = _resolve(str(entry).replace("\\", "/"), tree.get("path"), folder)
            if place is None:
                if key == "test":  # often named by a template, and not exported
                    continue
                raise DataError(f"{path}: {key}: no such file or folder: {entry}")
            images += [YoloImage(p, _label_path(p), split) for p in _images_at(place, folder)]
    if not tree:
        images = [YoloImage(p, _label_path(p), None) for p in _images_at(folder, folder)]
    if not images:
        raise DataError(f"{path}: no image is found")
    return images


def read_yolo_labels(path, size):
    """Reads the outlines of a label file.

    Args:
        path: text, a line `class x1 y1 x2 y2 ...` for each object, x and y as shares of the image.
        size: `(height, width)` of the image, ints.

    Returns:
        `(outlines, faults)`: list of (line number, class, `[x1, y1, x2, ...]` in pixels), and a
        list of messages on other lines; boxes, `class x y width height`, are among these.

    Raises:
        DataError: if the file cannot be read; one that is missing has no outline.
    """
    if not os.path.isfile(path):
        return [], []
    outlines, faults = [], []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            try:
                outlines.append((number, *_outline(line.split(), size)))
            except DataError as error:
                faults.append(f"line {number}: {error}")
    return outlines, faults


def _outline(words, size):
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise DataError(f"a line must be numbers. Received: {' '.join(words)!r:.60}") from None
    if not values[0].is_integer():
        raise DataError(f"the class must be an int. Received: {words[0]!r:.40}")
    if len(values) in (5, 6):
        raise DataError("a box (class x y width height), no outline")
    if len(values) < 7 or len(values) % 2 == 0:
        raise DataError(f"a line must be a class and 3 or more x y. Received: {len(values)} values")
    worst = max(values[1:], key=lambda v: abs(v) if math.isfinite(v) else math.inf)
    if not abs(worst) <= _FARTHEST:
        raise DataError(f"x and y must be shares of the image, 0 to 1. Received: {worst:g}")
    scaled = [v * size[1 - i % 2] for i, v in enumerate(values[1:])]
    return int(values[0]), scaled


def _resolve(entry, root, folder):
    """The absolute path of an entry; exporters write it a folder too high as well."""
    below = entry
    while below.startswith("../"):
        below = below[3:]
    roots = [os.path.join(folder, str(root).replace("\\", "/"))] if root else []
    for parent in (*roots, folder):
        for name in (entry, below):
            place = os.path.normpath(os.path.join(parent, name))
            if os.path.exists(place):
                return place
    return None


def _images_at(place, folder):
    """The images in a folder, or of a text file that lists them."""
    if os.path.isfile(place):
        lines = [line.strip().replace("\\", "/") for line in _text(place).splitlines()]
        found = [_resolve(line, os.path.dirname(place), folder) or line for line in lines if line]
        return [os.path.join(folder, path) for path in found]
    names = [n for n in list_files(place) if n.lower().endswith(IMAGE_EXTENSIONS)]
    return [os.path.join(place, name) for name in names]


def _label_path(image_path):
    head, found, tail = image_path.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if found else image_path
    return f"{os.path.splitext(path)[0]}.txt"


def _text(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _yaml(path):
    try:
        return yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not YAML: {reason}") from None
