"""A YOLO folder with outlines: `data.yaml` or `classes.txt`, images and label files."""

import functools
import math
import os
import pathlib
from typing import Any

import yaml

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.convert.painting import Shape, paint_shapes
from tf_panoptic_fpn.convert.runs import segmentation_runs
from tf_panoptic_fpn.convert.source import SPLITS, Drawing, Source, SourceImage
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.folders import IMAGE_EXTENSIONS, list_files, unread_kinds

_SPLIT_KEYS = ("train", "val", "valid", "test")
_NAME_FILES = ("classes.txt", "obj.names")
_FARTHEST = 2.0  # an outline may leave the image a little; what is far outside is in pixels
_READ = (*IMAGE_EXTENSIONS, ".txt", ".yaml", ".yml", ".cache", ".names")


def read_yolo(folder: str | os.PathLike, categories: CategoryTable | None = None) -> Source:
    """Reads a folder in the layout of YOLO, of which the labels are outlines.

    Labels lie where `labels` takes the place of `images` in the path of the image, or beside it.

    Args:
        folder: path, with `data.yaml` or `classes.txt`.
        categories: by YOLO's class + 1; by default all classes are things.

    Returns:
        A `Source` with the splits of `data.yaml`.

    Raises:
        DataError: if the folder is none of this kind, has no image or lacks a split that it names.
    """
    path = find_yolo_file(folder)
    if path is None:
        raise DataError(f"{folder}: no YOLO folder: neither data.yaml nor classes.txt with labels/")
    names = _names(path)
    if categories is None:
        categories = CategoryTable(tuple(Category(c + 1, n, True) for c, n in names.items()))
    found = _find_images(path)
    images_dir = os.path.commonpath([os.path.dirname(image_path) for image_path, _ in found])
    images = tuple(
        SourceImage(
            image_id,
            os.path.relpath(image_path, images_dir),
            functools.partial(_draw, _label_path(image_path)),
            split=split,
        )
        for image_id, (image_path, split) in enumerate(found, 1)
    )
    notes = unread_kinds(list_files(folder), _READ)
    return Source(categories, images_dir, images, notes=tuple(notes))


def find_yolo_file(folder: str | os.PathLike) -> str | None:
    """Returns the path of the file of a folder that names YOLO's classes, or None."""
    for path in sorted(pathlib.Path(folder).glob("*.y*ml")):
        tree = _yaml(path)
        if isinstance(tree, dict) and "names" in tree and not tree.keys().isdisjoint(_SPLIT_KEYS):
            return str(path)
    for name in _NAME_FILES:
        path = pathlib.Path(folder, name)
        if path.is_file() and any(pathlib.Path(folder).rglob("labels")):
            return str(path)
    return None


def read_yolo_labels(
    path: str | os.PathLike, size: tuple[int, int]
) -> tuple[list[tuple[int, int, list[float]]], list[str]]:
    """Reads the outlines of a label file.

    Args:
        path: text, a line `class x1 y1 x2 y2 ...` for each object, x and y as shares of the image.
        size: `(height, width)` of the image.

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


def _draw(label_path: str, size: tuple[int, int], categories: CategoryTable) -> Drawing:
    outlines, faults = read_yolo_labels(label_path, size)
    shapes = []
    for number, yolo_class, outline in outlines:
        try:
            if yolo_class + 1 not in categories.by_id:
                raise DataError(f"unknown class {yolo_class}")
            runs = segmentation_runs([outline], size)
        except DataError as error:
            faults.append(f"line {number}: {error}")
            continue
        name = f"line {number} ({categories.by_id[yolo_class + 1].name})"
        shapes.append(Shape(runs, yolo_class + 1, False, name))
    return paint_shapes(shapes, size, categories).without(faults)


def _names(path: str) -> dict[int, str]:
    """Dict: class -> name, of a YAML file with `names`, or a text file with a name on each line."""
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


def _find_images(path: str) -> list[tuple[str, str | None]]:
    """Path and split of each image of a folder, by the file of its classes.

    The splits are those that a YAML file names, relative to its `path` or to its folder. Without,
    all images of the folder are of one split, None.
    """
    folder = os.path.dirname(os.path.abspath(path))
    tree = _yaml(path) if path.endswith(("yaml", "yml")) else {}
    images: list[tuple[str, str | None]] = []
    for key in _SPLIT_KEYS:
        entries = tree.get(key) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            place = _resolve(str(entry).replace("\\", "/"), tree.get("path"), folder)
            if place is not None:
                images += [(image_path, SPLITS[key]) for image_path in _images_at(place, folder)]
            elif key != "test":  # often named by a template, and not exported
                raise DataError(f"{path}: {key}: no such file or folder: {entry}")
    if not tree:
        images = [(image_path, None) for image_path in _images_at(folder, folder)]
    if not images:
        raise DataError(f"{path}: no image is found")
    return images


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


def _text(path: str | os.PathLike) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _yaml(path: str | os.PathLike) -> Any:
    try:
        return yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not YAML: {reason}") from None
