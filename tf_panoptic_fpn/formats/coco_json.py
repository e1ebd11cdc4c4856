"""The one rule for each field of COCO's JSON files, panoptic, instances and results alike.

A value of another type that can mean one thing only is read as that, with a warning ("repaired");
one that cannot is an error which quotes it as written. Each function returns None after an error,
if the policy of the `Breaches` lets it.
"""

import os
import posixpath
from collections.abc import Collection, Container
from typing import Any

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.formats.breaches import LIST, Breaches
from tf_panoptic_fpn.formats.json_file import Entry
from tf_panoptic_fpn.messages import written

MOST_PIXELS = (1 << 31) - 1  # that pycocotools' run lengths can count
ImageFile = tuple[str, int, int]  # file name, height and width
_NUMBERS = {int, float}
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


class Fields:
    """Reads the fields of the entries of one file.

    Attributes:
        file: for messages.
        breaches: takes what breaks a rule; by default that is an error.
        place: the entry that is being read or, to be put in words only if need be, a tuple of the
            image's file name, its id and the annotation's `id`; set it before each.
        kind: what an entry is.
    """

    def __init__(
        self,
        file: str | os.PathLike,
        breaches: Breaches | None = None,
        kind: str = "an annotation",
    ) -> None:
        self.file = str(file)
        self.breaches = breaches or Breaches()
        self.place: str | tuple[str, Any, Any] = ""
        self.kind = kind

    def add(self, rule: str, text: str) -> Any:
        """Adds a breach of the current entry; returns None."""
        place = self.place if isinstance(self.place, str) else annotation_place(*self.place)
        self.breaches.add(rule, place, text, self.file)

    def int_id(self, entry: Entry, key: str) -> int | None:
        """Returns an id that must be an int; text such as "12" and 12.0 are read as 12."""
        value = entry.get(key)
        return value if type(value) is int else self._as_id(entry, key, "int")

    def image_id(self, entry: Entry, key: str) -> int | str | None:
        """Returns the id of an image, an int or text; 12.0 is read as 12."""
        value = entry.get(key)
        return value if type(value) in (int, str) else self._as_id(entry, key, "int or str")

    def annotation_id(self, entry: Entry) -> int | str | None:
        """Returns the `id` of an annotation, an int or, where it is no number, text."""
        value = entry["id"]
        number = _as_int(value)
        if number is None and isinstance(value, str):
            self.add("text_id", f"`id` is text. Received: {written(value)}")
            return value
        return number if type(value) is int else self._as_id(entry, "id", "int or str")

    def known_image(self, entry: Entry, images: Collection[int | str]) -> Any:
        """Returns the `image_id` of an annotation or a result, as `images`, a dict or set, has it.

        An id that is not listed is looked up as text or as an int.
        """
        value = entry.get("image_id")
        if type(value) in (int, str) and value in images:
            return value
        if type(value) not in (int, float, str):
            return self._wrong(entry, "image_id", "int or str")
        other = matching_id(value, images)
        if other is not None:
            self._repaired("image_id", value, other)
            return other
        kinds = {type(key) for key in images}
        only = f"; the ids of the images are {kinds.pop().__name__}" if len(kinds) == 1 else ""
        text = f"{self.kind} is for image id {written(value)}, which is not listed{only}"
        return self.add("unknown_image", text)

    def known_category(self, entry: Entry, categories: Container[int]) -> int | None:
        """Returns the `category_id` of an annotation, a segment or a result; it must be listed."""
        category_id = entry.get("category_id")
        if type(category_id) is not int:
            category_id = self.int_id(entry, "category_id")
        if category_id is not None and category_id not in categories:
            return self.add("unknown_category", f"unknown category id {category_id}")
        return category_id

    def is_crowd(self, entry: Entry) -> bool | None:
        """Returns `iscrowd`; False where it is left out."""
        value = entry.get("iscrowd", 0)
        if type(value) is int and value in (0, 1):  # as nearly all are
            return value == 1
        if value is None:
            self._repaired("iscrowd", None, 0)
            return False
        return self._flag(entry, "iscrowd", 0)

    def is_thing(self, entry: Entry) -> bool | None:
        """Returns `isthing` of a category; True where it is left out."""
        return self._flag(entry, "isthing", 1)

    def area(self, entry: Entry) -> float | None:
        """Returns `area`; None where it is left out or is no number of 0 or above."""
        value = entry.get("area")
        if value is None or (is_number(value) and value >= 0):
            return value
        number = _as_number(value)
        if number is None or number < 0:
            text = f"`area` must be a number of 0 or above. Received: {written(value)}"
            return self.add("bad_area", text)
        self._repaired("area", value, number)
        return number

    def box(self, entry: Entry) -> tuple[tuple[float, float, float, float] | None, bool]:
        """Returns `(box, is_good)`; the box is x, y, width, height, or None where it is left out.

        An empty list counts as left out.
        """
        value: Any = entry.get("bbox")
        if is_plain_box(value):
            return tuple(value), True
        if value is None:
            return None, True
        if value == []:
            self.add("empty_box", "`bbox` is empty")
            return None, True
        if isinstance(value, list) and len(value) == 4:
            if all(map(is_number, value)) and value[2] >= 0 and value[3] >= 0:
                if not (value[2] and value[3]):
                    self.add("empty_box", f"`bbox` has no size. Received: {written(value)}")
                return tuple(value), True
            numbers = [_as_number(v) for v in value]
            if None not in numbers and numbers[2] >= 0 and numbers[3] >= 0:
                self._repaired("bbox", value, numbers)
                return tuple(numbers), True
        self.add(
            "bad_box",
            "`bbox` must be four finite numbers, x, y, width and height, the last two not "
            f"negative. Received: {written(value)}",
        )
        return None, False

    def file_name(self, entry: Entry) -> str | None:
        """Returns `file_name` with `/` between its parts and without `./`."""
        value = entry.get("file_name")
        if not isinstance(value, str) or not value:
            return self._wrong(entry, "file_name", "str")
        if "\\" in value or "./" in value or "//" in value:
            name = posixpath.normpath(value.replace("\\", "/"))
            if name != value:
                self.add("path", f"`file_name` is {written(value)}, read as {written(name)}")
            return name
        return value

    def size(self, entry: Entry, key: str) -> int | None:
        """Returns `height` or `width`, above 0."""
        value = entry.get(key)
        if type(value) is not int:
            return self._wrong(entry, key, "int")
        if value <= 0:
            return self.add("entry", f"`{key}` must be above 0. Received: {value}")
        return value

    def list_of_objects(self, entry: Entry, key: str) -> list[Entry] | None:
        """Returns the dicts in a list."""
        value = entry.get(key)
        if not isinstance(value, list):
            return self._wrong(entry, key, "a list of objects")
        for item in value:
            if not isinstance(item, dict):
                self.add("entry", f"`{key}` must be a list of objects. Received: {written(item)}")
        return [item for item in value if isinstance(item, dict)]

    def _as_id(self, entry, key, kinds):
        number = _as_int(entry.get(key))
        if number is None:
            return self._wrong(entry, key, kinds)
        self._repaired(key, entry[key], number)
        return number

    def _flag(self, entry, key, default):
        value = entry.get(key, default)
        if type(value) is int and value in (0, 1):
            return value == 1
        flag = _as_flag(value)
        if flag is None:
            return self.add(key, f"`{key}` must be 0 or 1. Received: {written(value)}")
        self._repaired(key, value, int(flag))
        return flag

    def _wrong(self, entry, key, kinds):
        if key not in entry:
            shown = {k: v for k, v in entry.items() if not isinstance(v, (list, dict))}
            return self.add("entry", f"the key `{key}` is missing. Received: {written(shown)}")
        return self.add("entry", f"`{key}` must be {kinds}. Received: {written(entry[key])}")

    def _repaired(self, key, value, meant):
        self.add("repaired", f"`{key}` is {written(value)}, read as {written(meant)}")


def category_table(
    entries: list[Entry],
    file: str | os.PathLike,
    breaches: Breaches | None = None,
    is_panoptic: bool = False,
) -> CategoryTable:
    """Reads the `categories` of a COCO JSON.

    Args:
        entries: with `id`, `name` and, where some are stuff, `isthing` and `color`.
        file: where they were read, for messages.
        breaches: by default those that stop.
        is_panoptic: whether `isthing` is missed where it is left out, which makes a thing.

    Returns:
        A table of the good ones.

    Raises:
        DataError: by the policy of `breaches`, if there is none, or one breaks a rule.
    """
    fields = Fields(file, breaches)
    if not entries:
        fields.add("list", "the data set has no categories")
    categories: dict[int, Category] = {}
    names = set()
    for entry in entries:
        name = entry.get("name")
        fields.place = ""
        if "id" not in entry or not isinstance(name, (str, int)):
            fields.add("entry", f"a category needs `id` and `name`. Received: {written(entry)}")
            continue
        fields.place = f"category {written(name)}"
        color = entry.get("color")
        if color and not (isinstance(color, list) and all(type(c) is int for c in color)):
            fields.add("entry", f"`color` must be a list of ints. Received: {written(color)}")
            color = None
        category_id = fields.int_id(entry, "id")
        is_thing = fields.is_thing(entry)
        if category_id is None or is_thing is None:
            continue
        if category_id in categories:
            text = f"category ids must be unique. Received twice: [{category_id}]"
            fields.add("category_twice", text)
            continue
        if is_panoptic and "isthing" not in entry:
            fields.add("no_isthing", "read as a thing")
        if name in names:
            fields.add("name_twice", f"again as id {category_id}")
        names.add(name)
        color = tuple(color) if color else None
        categories[category_id] = Category(category_id, str(name), is_thing, color)
    return CategoryTable(tuple(categories.values()))


def images_by_id(
    entries: list[Entry],
    file: str | os.PathLike,
    breaches: Breaches | None = None,
    needs_name: bool = True,
) -> dict[int | str, ImageFile]:
    """Reads the `images` of a COCO JSON.

    Args:
        entries: with `id`, `file_name`, `height` and `width`.
        file, breaches: see `category_table`.
        needs_name: False for metrics, which open no image.

    Returns:
        Dict, in their order: image id -> `(file_name, height, width)`.

    Raises:
        DataError: by the policy of `breaches`, if there is none, or one breaks a rule.
    """
    fields = Fields(file, breaches)
    if not entries:
        fields.add("list", "the data set has no images")
    images: dict[int | str, ImageFile] = {}
    names = set()
    for entry in entries:
        name = entry.get("file_name")
        fields.place = name if isinstance(name, str) else ""
        image_id = fields.image_id(entry, "id")
        if image_id in images:
            text = f"image ids must be unique. Received twice: {written(image_id)}"
            fields.add("image_twice", text)
            continue
        name = fields.file_name(entry) if needs_name else ""
        height, width = fields.size(entry, "height"), fields.size(entry, "width")
        if image_id is None or name is None or height is None or width is None:
            continue
        if height * width > MOST_PIXELS:
            text = f"an image can have {MOST_PIXELS} pixels at most. Received: {height}x{width}"
            fields.add("entry", text)
            continue
        if needs_name and name in names:
            fields.add("file_twice", f"listed again, as image id {written(image_id)}")
            if fields.breaches.policy == LIST:
                continue
        names.add(name)
        images[image_id] = (name, height, width)
    return images


def annotation_place(file_name: str, image_id: Any, annotation_id: Any) -> str:
    """Names an annotation, by its image's file name or else by the image's id."""
    name = "an annotation" if annotation_id is None else f"annotation {annotation_id}"
    return f"{file_name}: {name}" if file_name else f"{name} (image {image_id})"


def is_plain(entry: Entry) -> bool:
    """Whether the fields of an annotation, but for its mask, are as nearly all are: well-formed.

    This is for speed alone: what is not plain may be good all the same, which `Fields` tells.
    """
    try:
        return (
            is_plain_box(entry["bbox"])
            and type(entry["area"]) in _NUMBERS
            and type(entry["iscrowd"]) is type(entry["id"]) is int
            and entry["iscrowd"] in (0, 1)
            and 0 <= entry["area"] < 1e15
            and -1e18 < entry["id"] < 1e18
        )
    except (KeyError, TypeError):
        return False


def is_plain_box(box: Any) -> bool:
    """Whether a `bbox` is a list of four finite numbers, the last two above 0."""
    if type(box) is not list or len(box) != 4:
        return False
    x, y, width, height = box
    return (
        type(x) in _NUMBERS
        and type(y) in _NUMBERS
        and type(width) in _NUMBERS
        and type(height) in _NUMBERS
        and -1e15 < x < 1e15
        and -1e15 < y < 1e15
        and 0 < width < 1e15
        and 0 < height < 1e15
    )


def matching_id(image_id: Any, images: Container[int | str]) -> int | str | None:
    """Returns the id of an image as a dict or set of ids has it, be it written as text or not."""
    if type(image_id) in (int, str) and image_id in images:
        return image_id
    number = _as_int(image_id)
    candidates = (number, str(image_id if number is None else number))
    return next((c for c in candidates if c is not None and c in images), None)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number; ints may be too large for `math.isfinite`."""
    return type(value) in (int, float) and -1e15 < value < 1e15


def _as_int(value):
    """The int that a number or text is, if it is written as that int is; else None."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.lstrip("-").isdigit():
        try:
            return int(value) if str(int(value)) == value else None
        except ValueError:  # more digits than Python converts
            return None
    return None


def _as_number(value):
    """The finite number that a value is or, being text, says; else None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if is_number(value) else None


def _as_flag(value):
    """The bool that true, false, 1.0, 0.0, or text for one says; else None."""
    if isinstance(value, str):
        return _FLAGS.get(value.lower())
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None
