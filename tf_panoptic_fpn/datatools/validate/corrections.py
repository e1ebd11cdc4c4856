"""What a split's categories and images are in its corrected JSON."""

import os
from collections.abc import Mapping
from typing import Any

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.datatools.validate.findings import Changes
from tf_panoptic_fpn.formats.breaches import LIST, Breaches
from tf_panoptic_fpn.formats.coco_json import Fields, ImageFile
from tf_panoptic_fpn.formats.json_file import Entry, read_lists


def corrected_lists(
    path: str | os.PathLike,
    categories: CategoryTable,
    images: Mapping[int | str, ImageFile],
    changes: Changes,
) -> tuple[list[Entry], dict[int | str, Entry]]:
    """Returns the entries of a JSON's categories and images, as they were read.

    Args:
        path: the JSON.
        categories, images: as they were read.
        changes: added to.
    """
    lists = read_lists(path, ("categories", "images"), Breaches(LIST)) or {}
    quiet = Fields(path, Breaches(LIST))
    kept: dict[str, dict[Any, Entry]] = {"categories": {}, "images": {}}
    values: dict[str, dict[Any, Entry]] = {
        "categories": {
            category.id: {"id": category.id, "name": category.name}
            | {"isthing": int(category.is_thing)}
            for category in categories.categories
        },
        "images": {
            image_id: {"id": image_id, "file_name": name, "height": height, "width": width}
            for image_id, (name, height, width) in images.items()
        },
    }
    for key, entries in lists.items():
        for entry in entries:
            entry_id = (
                quiet.int_id(entry, "id") if key == "categories" else quiet.image_id(entry, "id")
            )
            read = values[key].pop(entry_id, None)  # of two with one id, the first was read
            if read is None:
                continue
            if "isthing" not in entry:
                read.pop("isthing", None)
            if not isinstance(entry.get("color", []), list):
                entry.pop("color")
            name = read["name" if key == "categories" else "file_name"]
            kept[key][entry_id] = {**entry, **corrections(entry, read, name, changes, key)}
    return list(kept["categories"].values()), kept["images"]


def corrections(entry: Entry, read: Entry, where: str, changes: Changes, kind: str) -> Entry:
    """Returns those values that are not in the JSON as they were read, and notes each.

    Args:
        entry: of the JSON.
        read: key -> value as it was read.
        where: names the entry.
        changes: added to.
        kind: what the entry is.
    """
    changed = {key: value for key, value in read.items() if not _is_same(entry.get(key), value)}
    for key, value in changed.items():
        changes.add(f"`{key}` of {kind} is corrected", f"{where}: {value}")
    return changed


def _is_same(written, read):
    return type(written) is type(read) and written == read
