"""A folder of LabelMe JSON files, and those of tools that write them, X-AnyLabeling among them."""

import base64
import collections
import dataclasses
import functools
import io
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.convert.painting import Shape, merge_shapes, paint_shapes
from tf_panoptic_fpn.convert.runs import mask_runs, segmentation_runs
from tf_panoptic_fpn.convert.source import Drawing, Source, SourceImage, check_size
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.folders import IMAGE_EXTENSIONS, files_by_stem, list_files, unread_kinds
from tf_panoptic_fpn.formats.json_file import read_json
from tf_panoptic_fpn.messages import plural

# Labels that LabelMe's own exporters take for no class.
_IGNORE = "__ignore__"
_NO_CLASS = {_IGNORE: "void", "_background_": "not annotated"}
_OUTLINES = ("polygon", "rotation", "oriented_rectangle", "quadrilateral")
_KINDS_WITH_AREA = (*_OUTLINES, "rectangle", "circle", "mask")
_CIRCLE_POINTS = 72
_FARTHEST = 1e6  # pixels; False for NaN, and safe for ints that are no float
_CROWD_FLAGS = ("crowd", "iscrowd")
_SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp", b"RIFF": ".webp"}


class NotLabelmeError(DataError):
    """A JSON file of another tool."""


@dataclasses.dataclass(frozen=True)
class LabelmeFile:
    """What a LabelMe file says.

    `image_path` is as written, with `/`; `stated_size` is `(height, width)`, or None; each of
    `shapes` is a dict with a `label`; `image_suffix` is that of the image in the file itself, ""
    for a kind not known here, or None where there is none.
    """

    image_path: str
    stated_size: tuple[int, int] | None
    shapes: list[dict[str, Any]]
    image_suffix: str | None


def read_labelme(folder: str | os.PathLike, categories: CategoryTable | None = None) -> Source:
    """Reads the LabelMe JSON files in a folder and its subfolders.

    Shapes of one label with one `group_id` are one instance. A shape whose flag `crowd` or
    `iscrowd` is set is a crowd. `__ignore__` is void, whatever the background, and `_background_`
    is not annotated, unless they are categories.

    Args:
        folder: path. The images lie where each file's `imagePath` says, or beside the file, or in
            it.
        categories: by default every label of a shape with an area is a thing, with ids from 1 on in
            the order of the alphabet.

    Returns:
        A `Source`; `left_out` names the files that cannot be read.

    Raises:
        DataError: if the folder does not exist or holds no LabelMe file.
    """
    documents, left_out, others = _read_documents(folder)
    shapes = [shape for file in documents.values() for shape in file.shapes]
    labels = collections.Counter(shape["label"] for shape in shapes if _has_area(shape))
    without_area = sorted({shape["label"] for shape in shapes} - set(labels))
    notes = [f"label {label}: only points and lines, no class" for label in without_area]
    if categories is None:
        names = sorted(set(labels) - set(_NO_CLASS))
        categories = CategoryTable(tuple(Category(i, n, True) for i, n in enumerate(names, 1)))
    known = {category.name for category in categories.categories}
    no_class = [label for label in _NO_CLASS if labels[label] and label not in known]
    notes += [f"{plural(labels[label], 'shape')} {label}: {_NO_CLASS[label]}" for label in no_class]
    places = {path: _image_place(path, file) for path, file in documents.items()}
    images_dir = os.path.commonpath([os.path.dirname(path) for path, _ in places.values()])
    images = tuple(
        SourceImage(
            image_id,
            os.path.relpath(places[path][0], images_dir),
            functools.partial(_draw, file, no_class),
            places[path][1],
        )
        for image_id, (path, file) in enumerate(documents.items(), 1)
    )
    notes += _notes_on_files(folder, places, others)
    return Source(categories, images_dir, images, left_out, notes=tuple(notes))


def read_labelme_file(path: str | os.PathLike) -> LabelmeFile:
    """Reads a LabelMe file, without the image that may be in it.

    Raises:
        NotLabelmeError: if the JSON is of another kind.
        DataError: if the file cannot be read, or a shape has no label.
    """
    tree = read_json(path, (dict, list))
    if not isinstance(tree, dict) or not {"shapes", "imagePath"} <= tree.keys():
        raise NotLabelmeError(f"{path}: a LabelMe file has `shapes` and `imagePath`")
    shapes, image_path = tree["shapes"], tree["imagePath"]
    if not isinstance(shapes, list):
        raise DataError(f"{path}: `shapes` must be a list. Received: {shapes!r:.100}")
    if not isinstance(image_path, str) or not image_path:
        raise DataError(f"{path}: `imagePath` must be a path. Received: {image_path!r:.100}")
    for shape in shapes:
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{path}: a shape must have a `label`. Received: {shape!r:.100}")
    suffix = _image_suffix(tree.get("imageData"))
    return LabelmeFile(image_path.replace("\\", "/"), _stated_size(tree, path), shapes, suffix)


def _stated_size(tree, path):
    height, width = tree.get("imageHeight"), tree.get("imageWidth")
    if height is None and width is None:
        return None
    if type(height) is not int or type(width) is not int:
        raise DataError(
            f"{path}: `imageHeight` and `imageWidth` must be ints. Received: {height!r:.40} and "
            f"{width!r:.40}"
        )
    return height, width


def _image_suffix(encoded):
    """The suffix by the first bytes of an image in base64."""
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        head = base64.b64decode(encoded[:16])
    except ValueError:
        return None
    return next((s for start, s in _SIGNATURES.items() if head.startswith(start)), "")


def _read_documents(folder):
    """Dict: path -> `LabelmeFile`; dict: name -> why it cannot be read; JSON of other tools."""
    documents, left_out, others = {}, {}, []
    for name in files_by_stem(folder, (".json",)).values():
        path = os.path.join(folder, name)
        try:
            documents[path] = read_labelme_file(path)
        except NotLabelmeError:
            others.append(name)
        except DataError as error:
            left_out[name] = str(error).removeprefix(f"{path}: ")
    if not documents:
        found = [f"{name}: {reason}" for name, reason in left_out.items()]
        found += [f"{name}: a JSON file without `shapes` and `imagePath`" for name in others]
        found += unread_kinds(list_files(folder), (".json",))
        raise DataError("; ".join([f"{folder}: no LabelMe file in this folder", *found[:3]]))
    return documents, left_out, others


def _image_place(path: str, file: LabelmeFile) -> tuple[str, Callable[[], bytes] | None]:
    """The image's absolute path, and a function that returns its bytes where that is no file."""
    folder = os.path.dirname(os.path.abspath(path))
    stated = os.path.normpath(os.path.join(folder, file.image_path))
    beside = os.path.join(folder, file.image_path.rsplit("/")[-1])
    for place in (stated, beside):
        if os.path.isfile(place):
            return place, None
    if file.image_suffix is None:
        return stated, None
    stem, suffix = os.path.splitext(beside)
    same = {file.image_suffix, suffix.lower()} <= {".jpg", ".jpeg"}
    suffix = suffix if same else file.image_suffix or suffix
    return stem + suffix, functools.partial(_embedded_image, path)


def _embedded_image(path):
    """The image in a LabelMe file, as the bytes of an image file."""
    try:
        return base64.b64decode(read_json(path, dict)["imageData"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: `imageData` must be base64: {error}") from None


def _notes_on_files(folder, places, others):
    notes = []
    embedded = sum(read is not None for _, read in places.values())
    if embedded:
        notes.append(f"{plural(embedded, 'image')} taken from `imageData`: none at `imagePath`")
    if others:
        notes.append(
            f"{plural(len(others), 'JSON file')} of other tools, e.g. {others[0]}: "
            f"without `shapes` and `imagePath`"
        )
    names = list_files(folder)
    used = {os.path.realpath(path) for path, _ in places.values()}
    unused = [
        name
        for name in names
        if name.lower().endswith(IMAGE_EXTENSIONS)
        and os.path.realpath(os.path.join(folder, name)) not in used
    ]
    if unused:
        notes.append(f"{plural(len(unused), 'image')} without a LabelMe file, e.g. {unused[0]}")
    return notes + unread_kinds(names, (".json", *IMAGE_EXTENSIONS))


def _draw(
    file: LabelmeFile, no_class: list[str], size: tuple[int, int], categories: CategoryTable
) -> Drawing:
    if file.stated_size is not None:
        check_size("the LabelMe file", file.stated_size, size)
    ids_by_name = {category.name: category.id for category in categories.categories}
    instances, faults = collections.defaultdict(list), []
    for position, entry in enumerate(file.shapes):
        label, group_id, flags = entry["label"], entry.get("group_id"), entry.get("flags")
        name = f"shape {position} ({label})"
        try:
            if label not in ids_by_name and label not in no_class and _has_area(entry):
                raise DataError("the label is not a category")
            runs = _shape_runs(entry, size)
        except DataError as error:
            faults.append(f"{name}: {error}")
            continue
        category_id = None if label in no_class else ids_by_name[label]
        is_crowd = isinstance(flags, dict) and any(flags.get(flag) for flag in _CROWD_FLAGS)
        key = ("shape", position) if group_id is None else (label, str(group_id))
        instances[key].append(Shape(runs, category_id, is_crowd, name, label == _IGNORE))
    merged = [merge_shapes(parts, size) for parts in instances.values()]
    return paint_shapes(merged, size, categories).without(faults)


def _kind(shape):
    kind = shape.get("shape_type")
    return "polygon" if kind is None else f"{kind!s:.20}"


def _has_area(shape):
    """Whether shapes of this kind have one; lines and points have none."""
    return _kind(shape) in _KINDS_WITH_AREA


def _shape_runs(shape, size):
    """Run lengths of a shape, see `segmentation_runs`; raises DataError if it breaks a rule."""
    kind, points = _kind(shape), shape.get("points")
    if kind not in _KINDS_WITH_AREA:
        raise DataError(f"a {kind} has no area")
    numbers = isinstance(points, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and all(type(value) in (int, float) and abs(value) < _FARTHEST for value in point)
        for point in points
    )
    if not numbers:
        raise DataError("`points` must be a list of [x, y], in pixels")
    # LabelMe writes two opposite corners of a rectangle, X-AnyLabeling all four.
    if kind in _OUTLINES or (kind == "rectangle" and len(points) == 4):
        return segmentation_runs([[value for point in points for value in point]], size)
    if len(points) != 2:
        expected = "2 points or 4" if kind == "rectangle" else "2 points"
        raise DataError(f"a {kind} must have {expected}. Received: {len(points)}")
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return segmentation_runs([[x1, y1, x2, y1, x2, y2, x1, y2]], size)
    if kind == "circle":
        angles = np.linspace(0, 2 * np.pi, _CIRCLE_POINTS, endpoint=False)
        radius = math.hypot(x2 - x1, y2 - y1)
        outline = np.stack([x1 + radius * np.cos(angles), y1 + radius * np.sin(angles)], axis=-1)
        return segmentation_runs([outline.ravel().tolist()], size)
    return _bitmap_runs(shape.get("mask"), round(x1), round(y1), size)


def _bitmap_runs(encoded, left, top, size):
    """The runs of a bitmap, a PNG in base64, whose top left pixel is at (left, top)."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            if image.width > size[1] or image.height > size[0]:
                raise DataError(f"the mask is larger than the image: {image.height}x{image.width}")
            bitmap = np.asarray(image.convert("L")) > 0
    except DataError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError and others.
    except Exception as error:
        raise DataError(f"the mask cannot be decoded: {type(error).__name__}") from None
    mask = np.zeros(size, bool)
    bottom, right = top + bitmap.shape[0], left + bitmap.shape[1]
    if left < 0 or top < 0 or bottom > size[0] or right > size[1]:
        raise DataError("the mask leaves the image")
    mask[top:bottom, left:right] = bitmap
    return mask_runs(mask)
