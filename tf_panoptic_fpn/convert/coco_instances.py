"""COCO instances JSON: polygons, RLE and crowds."""

import collections
import functools
import os

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.convert.painting import Shape, paint_shapes
from tf_panoptic_fpn.convert.source import Source, SourceImage, check_size
from tf_panoptic_fpn.formats.breaches import LIST, Breaches
from tf_panoptic_fpn.formats.coco_instances import CocoInstances
from tf_panoptic_fpn.masks.rle import good_polygons, runs_of


def read_coco_instances(
    images_dir: str | os.PathLike,
    instances_json: str | os.PathLike,
    categories: CategoryTable | None = None,
) -> Source:
    """Reads a COCO instances JSON.

    Args:
        images_dir: folder of the images.
        instances_json: file with `images`, `annotations` and `categories`.
        categories: by the same ids; by default those of the file, things unless they have
            `isthing: 0`.

    Raises:
        DataError: if the file is no such JSON, or one of its images or categories breaks a rule. An
            annotation that breaks one is left out.
    """
    breaches, head = Breaches(LIST), Breaches()
    file = CocoInstances(instances_json, breaches, categories, things_only=False, head=head)
    breaches.merge(head)
    faults = collections.defaultdict(list)
    for breach in breaches.left_out:
        image, _, annotation = breach.place.partition(": ")
        if not annotation:
            image, annotation = os.path.basename(instances_json), breach.place
        faults[image].append(f"{annotation}: {breach.text}")
    images = tuple(
        SourceImage(image_id, name, functools.partial(_draw, file, image_id, faults.pop(name, ())))
        for image_id, (name, *_) in file.images.items()
    )
    notes = breaches.warnings()
    notes += [
        f"{name}: every annotation is a crowd, none is learned" for name in file.only_crowds()
    ]
    return Source(
        file.categories,
        os.fspath(images_dir),
        images,
        annotations_left_out=dict(faults),
        notes=tuple(notes),
    )


def _draw(file, image_id, faults, size, categories):
    file_name, *stated_size = file.images[image_id]
    check_size("the JSON", stated_size, size)
    breaches, shapes, parts = Breaches(LIST), [], []
    for entry, instance in file.entries_of_image(image_id, breaches=breaches):
        if instance is None:
            continue
        if isinstance(entry["segmentation"], list):
            bad = []
            good_polygons(entry["segmentation"], size, bad.append)
            parts += [f"annotation {instance.id}: {text}" for text in bad]
        runs, _ = runs_of([instance.rle])
        name = f"annotation {instance.id} ({categories.by_id[instance.category_id].name})"
        shape = Shape(runs.astype(np.int64), instance.category_id, instance.is_crowd, name)
        shapes.append(shape)
    found = [
        f"{breach.place.removeprefix(f'{file_name}: ')}: {breach.text}"
        for breach in breaches.left_out
    ]
    return paint_shapes(shapes, size, categories).without([*faults, *found, *parts])
