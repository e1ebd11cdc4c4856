"""COCO instances JSON: polygons, RLE and crowds."""

import functools
import os

from tf_panoptic_fpn.datatools.convert.painting import Shape, paint_shapes
from tf_panoptic_fpn.datatools.convert.source import Source, SourceImage
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_panoptic import category_table, images_by_id
from tf_panoptic_fpn.formats.json_file import read_lists
from tf_panoptic_fpn.formats.rle import segmentation_runs


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
        DataError: if the file is no such JSON, or one of its images or categories breaks a rule. An
            annotation that breaks one is left out.
    """
    lists = read_lists(instances_json, ("images", "annotations", "categories"))
    if categories is None:
        categories = category_table(lists["categories"], instances_json)
    images = images_by_id(lists["images"], instances_json)
    annotations, left_out = {image_id: [] for image_id in images}, []
    for position, annotation in enumerate(lists["annotations"]):
        image_id = annotation.get("image_id")
        if type(image_id) in (int, str) and image_id in annotations:
            annotations[image_id].append(annotation)
        else:
            left_out.append(f"{_name(annotation, position)}: unknown image id {image_id!r:.40}")
    reasons = {os.path.basename(instances_json): left_out} if left_out else {}
    return Source(
        categories,
        os.fspath(images_dir),
        tuple(
            SourceImage(
                image_id, name, functools.partial(_draw, stated_size, annotations[image_id])
            )
            for image_id, (name, *stated_size) in images.items()
        ),
        annotations_left_out=reasons,
    )


def _draw(stated_size, annotations, size, categories):
    if stated_size != list(size):
        stated, received = ("{}x{}".format(*s) for s in (stated_size, size))
        raise DataError(f"the JSON says {stated} (HxW), the image is {received}")
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
