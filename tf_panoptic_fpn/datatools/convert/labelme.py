"""A folder of LabelMe JSON files."""

import base64
import functools
import io
import math
import os

import numpy as np
from PIL import Image

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.datatools.convert.painting import Shape, paint_shapes
from tf_panoptic_fpn.datatools.convert.source import Source, SourceImage, files_by_stem, read_json
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.segmentation import mask_runs, runs_mask, segmentation_runs

_CIRCLE_POINTS = 72
_FARTHEST = 1e6  # pixels; False for NaN, and safe for ints that are no float
_CROWD_FLAGS = ("crowd", "iscrowd")


def read_labelme(folder, categories=None):
    """Reads the LabelMe JSON files in a folder and its subfolders.

    A shape is a `polygon`, `rectangle`, `circle` or `mask`. Shapes of one label with one `group_id`
    are one instance. A shape whose flag `crowd` or `iscrowd` is set is a crowd.

    Args:
        folder: path. The images lie where each file's `imagePath` says.
        categories: `CategoryTable`; by default every label is a thing, with ids from 1 on in the
            order of the alphabet.

    Returns:
        A `Source`; `left_out` names the files that are no LabelMe JSON.

    Raises:
        DataError: if the folder does not exist or holds no LabelMe file.
    """
    documents, left_out = {}, {}
    for name in files_by_stem(folder, (".json",)).values():
        path = os.path.join(folder, name)
        try:
            documents[path] = _read_document(path)
        except DataError as error:
            left_out[name] = str(error).removeprefix(f"{path}: ")
    if not documents:
        raise DataError(f"{folder}: no LabelMe file in this folder")
    if categories is None:
        labels = sorted({shape["label"] for _, shapes, _ in documents.values() for shape in shapes})
        categories = CategoryTable(tuple(Category(i, n, True) for i, n in enumerate(labels, 1)))
    image_paths = {
        path: os.path.abspath(os.path.join(os.path.dirname(path), image_path))
        for path, (image_path, _, _) in documents.items()
    }
    images_dir = os.path.commonpath([os.path.dirname(path) for path in image_paths.values()])
    images = tuple(
        SourceImage(
            image_id,
            os.path.relpath(image_paths[path], images_dir),
            functools.partial(_draw, shapes, stated_size),
        )
        for image_id, (path, (_, shapes, stated_size)) in enumerate(documents.items(), 1)
    )
    return Source(categories, images_dir, images, left_out)


def _read_document(path):
    """The image's path, the shapes and the size that a LabelMe file states."""
    tree = read_json(path)
    shapes = tree.get("shapes") if isinstance(tree, dict) else None
    image_path = tree.get("imagePath") if isinstance(tree, dict) else None
    if not isinstance(shapes, list) or not isinstance(image_path, str) or not image_path:
        raise DataError(f"{path}: a LabelMe file has `shapes` and `imagePath`")
    for shape in shapes:
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{path}: a shape must have a `label`. Received: {shape!r:.100}")
    size = tree.get("imageHeight"), tree.get("imageWidth")
    # Files from Windows have backslashes; the images in them, as base64, are not kept in memory.
    return image_path.replace("\\", "/"), shapes, size


def _draw(shapes, stated_size, size, categories):
    if stated_size != (None, None) and stated_size != tuple(size):
        stated, received = ("{}x{}".format(*s) for s in (stated_size, size))
        raise DataError(f"the LabelMe file says {stated} (HxW), the image is {received}")
    ids_by_name = {category.name: category.id for category in categories.categories}
    instances, faults = {}, []
    for position, shape in enumerate(shapes):
        label, group = shape["label"], shape.get("group_id")
        name = f"shape {position} ({label})"
        try:
            if label not in ids_by_name:
                raise DataError("the label is not a category")
            runs = _shape_runs(shape, size)
        except DataError as error:
            faults.append(f"{name}: {error}")
            continue
        key = ("shape", position) if group is None else (label, str(group))
        flags = shape.get("flags")
        is_crowd = isinstance(flags, dict) and any(flags.get(flag) for flag in _CROWD_FLAGS)
        instances.setdefault(key, []).append(Shape(runs, ids_by_name[label], is_crowd, name))
    merged = [_merge(parts, size) for parts in instances.values()]
    return paint_shapes(merged, size, categories).without(faults)


def _shape_runs(shape, size):
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    numbers = isinstance(points, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and all(type(value) in (int, float) and abs(value) < _FARTHEST for value in point)
        for point in points
    )
    if not numbers:
        raise DataError("`points` must be a list of [x, y], in pixels")
    if kind == "polygon":
        return segmentation_runs([[value for point in points for value in point]], size)
    if kind not in ("rectangle", "circle", "mask"):
        raise DataError(f"a {kind!s:.20} has no area")
    if len(points) != 2:
        raise DataError(f"a {kind} must have 2 points. Received: {len(points)}")
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return segmentation_runs([[x1, y1, x2, y1, x2, y2, x1, y2]], size)
    if kind == "circle":
        angles = np.linspace(0, 2 * np.pi, _CIRCLE_POINTS, endpoint=False)
        radius = math.hypot(x2 - x1, y2 - y1)
        outline = np.stack([x1 + radius * np.cos(angles), y1 + radius * np.sin(angles)], axis=-1)
        return segmentation_runs([outline.ravel().tolist()], size)
    return _mask_runs(shape.get("mask"), round(x1), round(y1), size)


def _mask_runs(encoded, left, top, size):
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


def _merge(parts, size):
    """One shape of several."""
    first, *others = parts
    if not others:
        return first
    runs = mask_runs(np.any([runs_mask(part.runs, size) for part in parts], axis=0))
    name = ", ".join(part.name for part in parts)
    return Shape(runs, first.category_id, any(part.is_crowd for part in parts), name)
