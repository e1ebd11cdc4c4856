"""A folder of LabelMe JSON files."""

import collections
import functools
import os

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.datatools.convert.painting import Shape, merge_shapes, paint_shapes
from tf_panoptic_fpn.datatools.convert.png_pairs import IMAGE_EXTENSIONS
from tf_panoptic_fpn.datatools.convert.source import Source, SourceImage, check_size
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.folders import files_by_stem, list_files, plural, unread_kinds
from tf_panoptic_fpn.formats.labelme import (
    BACKGROUND,
    IGNORE,
    NotLabelmeError,
    read_embedded_image,
    read_labelme_file,
)

_NO_CLASS = {IGNORE: "void", BACKGROUND: "not annotated"}


def read_labelme(folder, categories=None):
    """Reads the LabelMe JSON files in a folder and its subfolders.

    Shapes of one label with one `group_id` are one instance. A shape whose flag `crowd` or
    `iscrowd` is set is a crowd. `__ignore__` is void, whatever the background, and `_background_`
    is not annotated, unless they are categories.

    Args:
        folder: path. The images lie where each file's `imagePath` says, or beside the file, or in
            it.
        categories: `CategoryTable`; by default every label of a shape with an area is a thing, with
            ids from 1 on in the order of the alphabet.

    Returns:
        A `Source`; `left_out` names the files that cannot be read.

    Raises:
        DataError: if the folder does not exist or holds no LabelMe file.
    """
    documents, left_out, others = _read_documents(folder)
    labels = collections.Counter(
        shape.label for file in documents.values() for shape in file.shapes if shape.has_area
    )
    without_area = sorted(
        {shape.label for file in documents.values() for shape in file.shapes} - set(labels)
    )
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
    notes += _notes_on_files(folder, documents, places, others)
    return Source(categories, images_dir, images, left_out, notes=tuple(notes))


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


def _image_place(path, file):
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
    return stem + suffix, functools.partial(read_embedded_image, path)


def _notes_on_files(folder, documents, places, others):
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
        if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS
        and os.path.realpath(os.path.join(folder, name)) not in used
    ]
    if unused:
        notes.append(f"{plural(len(unused), 'image')} without a LabelMe file, e.g. {unused[0]}")
    return notes + unread_kinds(names, (".json", *IMAGE_EXTENSIONS))


def _draw(file, no_class, size, categories):
    if file.stated_size is not None:
        check_size("the LabelMe file", file.stated_size, size)
    ids_by_name = {category.name: category.id for category in categories.categories}
    instances, faults = {}, []
    for position, shape in enumerate(file.shapes):
        label = shape.label
        try:
            if label not in ids_by_name and label not in no_class and shape.has_area:
                raise DataError("the label is not a category")
            runs = shape.runs(size)
        except DataError as error:
            faults.append(f"{shape.name}: {error}")
            continue
        category_id = None if label in no_class else ids_by_name[label]
        key = ("shape", position) if shape.group_id is None else (label, str(shape.group_id))
        part = Shape(runs, category_id, shape.is_crowd, shape.name, label == IGNORE)
        instances.setdefault(key, []).append(part)
    merged = [merge_shapes(parts, size) for parts in instances.values()]
    return paint_shapes(merged, size, categories).without(faults)
