"""Roboflow's folders: `train`, `valid` and `test`, each with images and a COCO JSON."""

import collections
import dataclasses
import os

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.convert.coco_instances import read_coco_instances
from tf_panoptic_fpn.convert.source import SPLITS, Source, SourceImage
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.folders import IMAGE_EXTENSIONS, list_files, unread_kinds
from tf_panoptic_fpn.formats.json_file import read_lists

ANNOTATIONS = "_annotations.coco.json"
_FOLDERS = ("", "train", "valid", "val", "test")


def find_splits(folder: str | os.PathLike) -> dict[str, str]:
    """Dict: name of a folder ("" for the folder itself) -> the COCO JSON in it."""
    paths = {name: os.path.join(folder, name, ANNOTATIONS) for name in _FOLDERS}
    return {name: path for name, path in paths.items() if os.path.isfile(path)}


def read_roboflow(folder: str | os.PathLike, categories: CategoryTable | None = None) -> Source:
    """Reads folders of images with a COCO JSON each.

    Roboflow lists the name of the project as category 0; it is no class.

    Args:
        folder: path.
        categories: instead of the files' own, by the same ids.

    Returns:
        A `Source` with the splits that the folders are.

    Raises:
        DataError: if there is no such JSON, or as `read_coco_instances`, or if the categories of
            two splits differ.
    """
    splits = find_splits(folder)
    if not splits:
        raise DataError(f"{folder}: no {ANNOTATIONS}, neither here nor in train, valid or test")
    notes = []
    if categories is None:
        categories, notes = _categories(splits)
    images: list[SourceImage] = []
    left_out: dict[str, list[str]] = {}
    for name, path in splits.items():
        source = read_coco_instances(os.path.join(folder, name), path, categories)
        for image in source.images:
            file_name = os.path.join(name, image.file_name)
            images.append(
                dataclasses.replace(
                    image,
                    image_id=len(images) + 1,
                    file_name=file_name,
                    split=SPLITS.get(name),
                )
            )
        left_out |= {
            os.path.join(name, file): reasons
            for file, reasons in source.annotations_left_out.items()
        }
    notes += unread_kinds(list_files(folder), (".json", ".txt", *IMAGE_EXTENSIONS))
    return Source(
        categories,
        os.fspath(folder),
        tuple(images),
        annotations_left_out=left_out,
        notes=tuple(notes),
    )


def _categories(splits):
    """The `CategoryTable` that all splits share, and notes on entries that are no class."""
    tables, used = {}, collections.Counter()
    for path in splits.values():
        lists = read_lists(path, ("categories", "annotations"))
        used.update(str(annotation.get("category_id")) for annotation in lists["annotations"])
        tables[path] = lists["categories"]
    (first, entries), *others = tables.items()
    for path, other in others:
        if _names(other) != _names(entries):
            raise DataError(f"{path}: the categories are not those of {first}")
    groups = {entry.get("supercategory") for entry in entries}
    no_class = [
        entry
        for entry in entries
        if entry.get("name") in groups and not used[str(entry.get("id"))] and len(entries) > 1
    ]
    notes = [
        f"category {entry['id']} ({entry['name']}): the name of the others' group, no class"
        for entry in no_class
    ]
    kept = [entry for entry in entries if entry not in no_class]
    return CategoryTable.from_coco(kept, file=first), notes


def _names(entries):
    return {str(entry.get("id")): entry.get("name") for entry in entries}
