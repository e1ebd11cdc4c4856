"""A YOLO folder with outlines: `data.yaml`, images and labels."""

import functools
import os

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.datatools.convert.painting import Shape, paint_shapes
from tf_panoptic_fpn.datatools.convert.source import Source, SourceImage
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.folders import list_files, unread_kinds
from tf_panoptic_fpn.formats.png_pairs import IMAGE_EXTENSIONS
from tf_panoptic_fpn.formats.rle import segmentation_runs
from tf_panoptic_fpn.formats.yolo import (
    find_yolo_file,
    find_yolo_images,
    read_yolo_labels,
    read_yolo_names,
)

_READ = (*IMAGE_EXTENSIONS, ".txt", ".yaml", ".yml", ".cache", ".names")


def read_yolo(folder, categories=None):
    """Reads a folder in the layout of YOLO, of which the labels are outlines.

    Args:
        folder: path, with `data.yaml` or `classes.txt`.
        categories: `CategoryTable` by YOLO's class + 1; by default all classes are things.

    Returns:
        A `Source` with the splits of `data.yaml`.

    Raises:
        DataError: if the folder is none of this kind.
    """
    path = find_yolo_file(folder)
    if path is None:
        raise DataError(f"{folder}: no YOLO folder: neither data.yaml nor classes.txt with labels/")
    names = read_yolo_names(path)
    if categories is None:
        categories = CategoryTable(tuple(Category(c + 1, n, True) for c, n in names.items()))
    found = find_yolo_images(path)
    images_dir = os.path.commonpath([os.path.dirname(image.image_path) for image in found])
    images = tuple(
        SourceImage(
            image_id,
            os.path.relpath(image.image_path, images_dir),
            functools.partial(_draw, image.label_path),
            split=image.split,
        )
        for image_id, image in enumerate(found, 1)
    )
    notes = unread_kinds(list_files(folder), _READ)
    return Source(categories, images_dir, images, notes=tuple(notes))


def _draw(label_path, size, categories):
    outlines, faults = read_yolo_labels(label_path, size)
    faults = list(faults)
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
