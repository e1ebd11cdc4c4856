"""COCO instances JSON: polygons, RLE and crowds."""

import functools
import os

from tf_panoptic_fpn.data.convert.painting import Shape, paint_shapes
from tf_panoptic_fpn.data.convert.source import (
    Source,
    SourceImage,
    category_table,
    read_json,
)
from tf_panoptic_fpn.data.segmentation import segmentation_runs
from tf_panoptic_fpn.errors import DataError


def read_coco_instances(images_dir, instances_json, categories=None):
    """Reads a COCO instances JSON.

    Args:
        images_dir: folder of the images.
        instances_json: file with `images`, `annotations` and `categories`.
        categories: `CategoryTable` instead of the file's own, by the same ids; by default those of
            the file, things unless they have `isthing: 0`.

    Returns:
        A `Source`.

    Raises:
        DataError: if the file is no such JSON, or the id of an image or an annotation's image is
            missing. Faults of one annotation only leave it out.
    """
    tree = read_json(instances_json)
    lists = {}
    for key in ("images", "annotations", "categories"):
        lists[key] = tree.get(key) if isinstance(tree, dict) else None
        if not isinstance(lists[key], list) or not all(isinstance(e, dict) for e in lists[key]):
            raise DataError(f"{instances_json}: `{key}` must be a list of objects")
    if categories is None:
        categories = category_table(lists["categories"], instances_json)
    annotations = {}
    for image in lists["images"]:
        if type(image.get("id")) not in (int, str) or type(image.get("file_name")) is not str:
            raise DataError(
                f"{instances_json}: an image needs an `id` and a `file_name`. "
                f"Received: {image!r:.100}"
            )
        if image["id"] in annotations:
            raise DataError(f"{instances_json}: two images have the id {image['id']}")
        annotations[image["id"]] = []
    left_out = []
    for position, annotation in enumerate(lists["annotations"]):
        image_id = annotation.get("image_id")
        if type(image_id) in (int, str) and image_id in annotations:
            annotations[image_id].append(annotation)
        else:
            left_out.append(f"{_name(annotation, position)}: unknown image id {image_id!r:.40}")
    images = tuple(
        SourceImage(
            image["id"],
            image["file_name"],
            functools.partial(_draw, image, annotations[image["id"]]),
        )
        for image in lists["images"]
    )
    reasons = {os.path.basename(instances_json): left_out} if left_out else {}
    return Source(categories, os.fspath(images_dir), images, annotations_left_out=reasons)


def _draw(image, annotations, size, categories):
    stated = [image.get("height"), image.get("width")]
    if stated != list(size):
        raise DataError(
            f"the JSON says {stated[0]}x{stated[1]} (HxW), the image is {size[0]}x{size[1]}"
        )
    shapes, faults = [], []
    for position, annotation in enumerate(annotations):
        name = _name(annotation, position)
        category_id = annotation.get("category_id")
        try:
            if type(category_id) is not int or category_id not in categories.by_id:
                raise DataError(f"unknown category id {category_id!r:.40}")
            runs = segmentation_runs(annotation.get("segmentation"), size)
        except DataError as error:
            faults.append(f"{name}: {error}")
            continue
        name = f"{name} ({categories.by_id[category_id].name})"
        shapes.append(Shape(runs, category_id, bool(annotation.get("iscrowd", 0)), name))
    drawing = paint_shapes(shapes, size, categories)
    return drawing.without(faults)


def _name(annotation, position):
    return f"annotation {annotation.get('id', f'at position {position}')!s:.40}"
