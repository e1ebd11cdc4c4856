"""Checks of the lists in a COCO JSON, whatever it holds; what passes is safe to read."""

import json

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.datatools.validate.validation import DROPPED
from tf_panoptic_fpn.errors import DataError


def load_document(path, validation):
    """Reads a COCO JSON.

    Args:
        path: the file.
        validation: `Validation`, added to.

    Returns:
        dict with the lists `images`, `annotations` and `categories`; `{}` if it is no JSON object.

    Raises:
        DataError: if the file cannot be opened.
    """
    findings = validation.findings
    try:
        with open(path, encoding="utf-8") as file:
            tree = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        findings.add("json", f"{path}: not JSON: {error}")
        return {}
    if not isinstance(tree, dict):
        findings.add("json", f"{path}: not an object but {type(tree).__name__}")
        return {}
    lists = {}
    for key in ("images", "annotations", "categories"):
        entries = tree.get(key)
        if not isinstance(entries, list) or not entries:
            findings.add("list", f"{path}: `{key}` is {'empty' if entries == [] else 'no list'}")
            entries = []
        lists[key] = [entry for entry in entries if isinstance(entry, dict)]
        for _ in range(len(entries) - len(lists[key])):
            findings.add("entry", f"{path}: an entry of `{key}` is not an object")
            validation.changes.add(DROPPED.format(key), "it is not an object")
    return {**tree, **lists}


def check_categories(entries, findings, with_isthing):
    """Checks the list `categories`.

    Args:
        entries: list of dicts.
        findings: `Findings`, added to.
        with_isthing: bool, whether each must say if it is a thing.

    Returns:
        dict: category id -> the entry, of those that can be used.
    """
    categories, names = {}, set()
    for entry in entries:
        category_id, name = entry.get("id"), entry.get("name")
        if type(category_id) is not int or not isinstance(name, str):
            findings.add("entry", f"a category needs an int `id` and a `name`: {shown(entry)}")
        elif category_id in categories:
            findings.add("category_twice", f"id {category_id}: {name}")
        elif entry.get("isthing", 1) not in (0, 1):
            findings.add("isthing", f"{name}: {entry['isthing']!r:.40}")
        else:
            categories[category_id] = entry
            if with_isthing and "isthing" not in entry:
                findings.add("no_isthing", f"{name} (id {category_id})")
            if name in names:
                findings.add("name_twice", f"{name} (id {category_id})")
            names.add(name)
    num_stuff = sum(not is_thing(entry) for entry in categories.values())
    if num_stuff >= schema.IGNORED:
        findings.add("other", f"at most {schema.IGNORED - 1} stuff categories: {num_stuff}")
    return categories


def check_images(entries, findings):
    """Checks the list `images`.

    Args:
        entries: list of dicts.
        findings: `Findings`, added to.

    Returns:
        dict: image id -> the entry, of those that can be used.
    """
    images, names = {}, set()
    for entry in entries:
        image_id, name = entry.get("id"), entry.get("file_name")
        if type(image_id) not in (int, str) or not isinstance(name, str) or not name:
            findings.add("entry", f"an image needs an `id` and a `file_name`: {shown(entry)}")
        elif not all(type(v) is int and v > 0 for v in (entry.get("height"), entry.get("width"))):
            findings.add("entry", f"{name}: `height` and `width` must be ints above 0")
        elif image_id in images:
            findings.add("image_twice", f"id {image_id}: {name}")
        elif name in names:
            findings.add("file_twice", f"{name} (id {image_id})")
        else:
            images[image_id] = entry
            names.add(name)
    return images


def image_of(annotation, images, findings):
    """The id of an annotation's image; None, with a finding, where there is none."""
    image_id = annotation.get("image_id")
    if type(image_id) not in (int, str):
        findings.add("entry", f"an annotation needs an `image_id`: {shown(annotation)}")
    elif image_id not in images:
        findings.add("unknown_image", f"image id {image_id}")
    else:
        return image_id
    return None


def check_unused(categories, used, findings):
    """Notes the categories that no annotation has."""
    for category_id, entry in categories.items():
        if category_id not in used:
            findings.add("unused", f"{entry['name']} (id {category_id})")


def is_thing(category):
    """Whether a category is a thing, as the reader takes it."""
    return bool(category.get("isthing", 1))


def shown(entry):
    """An entry's plain values as text."""
    return f"{ {k: v for k, v in entry.items() if not isinstance(v, (list, dict))}!r:.100}"
