"""What a split's categories and images are in its corrected JSON."""

from tf_panoptic_fpn.formats.breaches import LIST, Breaches
from tf_panoptic_fpn.formats.coco_json import Fields
from tf_panoptic_fpn.formats.json_file import read_lists


def corrected_lists(path, categories, images, changes):
    """Returns the entries of a JSON's categories and images, as they were read.

    Args:
        path: the JSON.
        categories: `CategoryTable`, as it was read.
        images: dict: image id -> `(file_name, height, width)`, as it was read.
        changes: `Changes`, added to.

    Returns:
        `(categories, images)`: list of dicts; and dict: image id -> dict.
    """
    lists = read_lists(path, ("categories", "images"), Breaches(LIST)) or {}
    quiet, kept = Fields(path, Breaches(LIST)), {"categories": {}, "images": {}}
    values = {
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
            name = read.get("file_name", read.get("name"))
            kept[key][entry_id] = {**entry, **corrections(entry, read, name, changes, key)}
    return list(kept["categories"].values()), kept["images"]


def corrections(entry, read, where, changes, kind):
    """Returns those values that are not in the JSON as they were read, and notes each.

    Args:
        entry: dict of the JSON.
        read: dict: key -> value as it was read.
        where: str, names the entry.
        changes: `Changes`.
        kind: str, what the entry is.
    """
    changed = {key: value for key, value in read.items() if not _is_same(entry.get(key), value)}
    for key, value in changed.items():
        changes.add(f"`{key}` of {kind} is corrected", f"{where}: {value}")
    return changed


def _is_same(written, read):
    return type(written) is type(read) and written == read
