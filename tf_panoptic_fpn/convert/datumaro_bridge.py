"""Annotations in any format that the package datumaro reads, CVAT's XML among them."""

import collections
import functools
import os
import pathlib
import re

import numpy as np

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.convert.painting import Shape, merge_shapes, paint_shapes
from tf_panoptic_fpn.convert.runs import mask_runs, segmentation_runs
from tf_panoptic_fpn.convert.source import SPLITS, Source, SourceImage, check_size
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.messages import plural


def read_datumaro(
    folder: str | os.PathLike, categories: CategoryTable | None = None, kind: str | None = None
) -> Source:
    """Reads a folder through datumaro.

    Polygons, masks and ellipses have an area. Those of one label and one group are one instance,
    and a higher `z_order` lies above.

    Args:
        folder: path.
        categories: by default every label is a thing, with ids from 1 on in the order of the
            labels.
        kind: datumaro's name of the format, e.g. "cvat"; by default it is found by datumaro.

    Raises:
        ConfigError: if datumaro is not installed, or does not know the format.
        DataError: if datumaro cannot read the folder.
    """
    dataset, labels, kind = _import(folder, kind)
    if categories is None:
        categories = CategoryTable(tuple(Category(i, n, True) for i, n in enumerate(labels, 1)))
    items, left_out = [], {}
    for item in dataset:
        path = getattr(item.media, "path", None)
        if path:
            items.append((os.path.abspath(path), item))
        else:
            left_out[str(item.id)] = "datumaro finds no image"
    if not items:
        raise DataError(f"{folder}: datumaro finds no image there")
    images_dir = os.path.commonpath([os.path.dirname(path) for path, _ in items])
    images = tuple(
        SourceImage(
            image_id,
            os.path.relpath(path, images_dir),
            functools.partial(_draw, item, labels),
            split=SPLITS.get(item.subset),
        )
        for image_id, (path, item) in enumerate(items, 1)
    )
    notes = _passed_over(folder) if kind == "cvat" else ()
    return Source(categories, images_dir, images, left_out, notes=tuple(notes))


def _import(folder, kind):
    """The data set as datumaro reads it, the names of its labels, and the format."""
    try:
        from datumaro.components.annotation import AnnotationType
        from datumaro.components.dataset import Dataset
        from datumaro.components.environment import Environment
    except ImportError as error:
        raise ConfigError(
            "--source=datumaro needs the package datumaro: pip install 'tf-panoptic-fpn[convert]' "
            f"({error})"
        ) from None
    environment = Environment()
    kinds = environment.detect_dataset(os.fspath(folder)) if kind is None else [kind]
    if len(kinds) != 1:
        found = ", ".join(kinds) or "none"
        raise ConfigError(f"{folder}: --format must say the format. datumaro takes it for: {found}")
    try:
        dataset = Dataset.import_from(os.fspath(folder), kinds[0])
        labels = [label.name for label in dataset.categories()[AnnotationType.label].items]
    # datumaro raises its own errors, and what its parsers raise.
    except Exception as error:
        while error.__cause__ or error.__context__:  # the first one says why
            error = error.__cause__ or error.__context__
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{folder}: datumaro cannot read it as {kinds[0]}: {reason:.300}") from None
    return dataset, labels, kinds[0]


def _passed_over(folder):
    """Lines on what datumaro's reader of CVAT passes over without a word."""
    found = collections.Counter()
    for path in pathlib.Path(folder).rglob("*.xml"):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        found.update(re.findall(r"<(ellipse|cuboid|skeleton)\b", text))
    return [f"{plural(count, kind)} not read by datumaro" for kind, count in found.items()]


def _draw(item, labels, size, categories):
    if item.media.has_size:
        check_size("the annotation", item.media.size, size)
    ids_by_name = {category.name: category.id for category in categories.categories}
    instances, faults = {}, []
    for position, annotation in enumerate(item.annotations):
        label = None if annotation.label is None else labels[annotation.label]
        name = f"annotation {position} ({label})"
        try:
            if label not in ids_by_name:
                raise DataError("the label is not a category")
            runs = _annotation_runs(annotation, size)
        except DataError as error:
            faults.append(f"{name}: {error}")
            continue
        is_crowd = bool(annotation.attributes.get("is_crowd", False))
        key = (label, annotation.group) if annotation.group else ("annotation", position)
        shape = Shape(runs, ids_by_name[label], is_crowd, name, z_order=annotation.z_order)
        instances.setdefault(key, []).append(shape)
    merged = [merge_shapes(parts, size) for parts in instances.values()]
    return paint_shapes(merged, size, categories).without(faults)


def _annotation_runs(annotation, size):
    kind = annotation.type.name
    if kind == "polygon":
        return segmentation_runs([[float(value) for value in annotation.points]], size)
    if kind == "ellipse":
        outline = np.asarray(annotation.as_polygon(), float).ravel().tolist()
        return segmentation_runs([outline], size)
    if kind == "mask":
        mask = np.asarray(annotation.image).astype(bool)
        if mask.shape != tuple(size):
            raise DataError(f"the mask is {mask.shape[0]}x{mask.shape[1]} (HxW)")
        return mask_runs(mask)
    raise DataError(f"a {kind} is no outline")
