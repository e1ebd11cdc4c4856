"""Categories of a data set: dataset `category_id` <-> contiguous class."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.messages import one_line


@dataclasses.dataclass(frozen=True)
class Category:
    """One category, as a COCO panoptic file lists it."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class CategoryTable:
    """The categories of one data set, in the order of its file.

    Thing classes are numbered 0..K-1 in the order of ascending dataset id. `semantic_things` says
    what the semantic branch predicts for things: "other", the class 0 for every thing; or "all",
    the thing classes. Stuff takes the semantic classes that follow, in the order of ascending id.
    """

    categories: tuple[Category, ...]
    semantic_things: str = "other"

    def __post_init__(self) -> None:
        ids = [category.id for category in self.categories]
        doubled = sorted({i for i in ids if ids.count(i) > 1})
        if doubled:
            raise DataError(f"Category ids must be unique. Received twice: {doubled}")

    @classmethod
    def from_coco(
        cls,
        categories: Iterable[Mapping[str, Any]],
        file: str = "categories",
        default_thing: bool | None = True,
    ) -> "CategoryTable":
        """Reads the `categories` list of a COCO (panoptic) JSON file.

        Args:
            categories: list of dicts with `id`, `name` and, for panoptic files, `isthing`.
            file: name to put in error messages.
            default_thing: what a category without `isthing` is; None if it must say so.

        Raises:
            DataError: if an entry lacks a key or holds a wrong value, or an id occurs twice.
        """
        needed, text = {"id", "name"}, "`id` and `name`"
        if default_thing is None:
            needed, text = needed | {"isthing"}, "`id`, `name` and an `isthing` of 0 or 1"
        table = []
        for entry in categories:
            if not isinstance(entry, dict) or not needed <= entry.keys():
                raise DataError(f"{file}: a category needs {text}. Received: {entry!r:.100}")
            is_thing = entry.get("isthing", default_thing)
            color = entry.get("color")
            if type(entry["id"]) is not int:
                raise DataError(f"{file}: a category's `id` must be an int. Received: {entry}")
            if is_thing not in (0, 1):
                raise DataError(f"{file}: a category's `isthing` must be 0 or 1. Received: {entry}")
            if color and not isinstance(color, (list, tuple)):
                raise DataError(f"{file}: a category's `color` must be a list. Received: {entry}")
            table.append(
                Category(
                    id=entry["id"],
                    name=str(entry["name"]),
                    is_thing=bool(is_thing),
                    color=tuple(color) if color else None,
                )
            )
        return cls(tuple(table))

    @classmethod
    def load(cls, path: str | os.PathLike, default_thing: bool | None = True) -> "CategoryTable":
        """Reads a table that `save` wrote, a list written by hand, or that of a COCO file.

        Args:
            path: JSON, or YAML if its name ends so: a list of categories, or an object with the key
                `categories`.
            default_thing: see `from_coco`.

        Raises:
            DataError: if the file cannot be read or lists no categories, or as `from_coco`.
        """
        is_yaml = str(path).lower().endswith((".yaml", ".yml"))
        try:
            with open(path, "rb") as file:
                content = file.read()  # UTF-8 or UTF-16, with or without a byte order mark
            tree = yaml.safe_load(content) if is_yaml else json.loads(content)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            kind = "YAML" if is_yaml else "JSON"
            raise DataError(f"{path}: not {kind}: {one_line(error)}") from None
        entries = tree.get("categories") if isinstance(tree, dict) else tree
        if not isinstance(entries, list) or not entries:
            raise DataError(
                f"{path}: must hold a list of categories, one or more. Received: {entries!r:.40}"
            )
        return cls.from_coco(entries, str(path), default_thing)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the table as the `categories` list of a COCO panoptic file."""
        write_text(path, json.dumps(self.to_coco(), indent=1))

    def to_coco(self) -> list[dict[str, Any]]:
        """Returns the `categories` list of a COCO panoptic file."""
        entries = []
        for category in self.categories:
            entry = {"id": category.id, "name": category.name, "isthing": int(category.is_thing)}
            if category.color:
                entry["color"] = list(category.color)
            entries.append(entry)
        return entries

    @property
    def things(self) -> list[Category]:
        """Thing categories; the position is the thing class."""
        return sorted((c for c in self.categories if c.is_thing), key=lambda c: c.id)

    @property
    def stuff(self) -> list[Category]:
        """Stuff categories; the position + 1 is the semantic class beside `other`."""
        return sorted((c for c in self.categories if not c.is_thing), key=lambda c: c.id)

    @property
    def thing_ids(self) -> list[int]:
        """Dataset ids `[K]`, indexed by thing class."""
        return [category.id for category in self.things]

    @property
    def stuff_ids(self) -> list[int]:
        """Dataset ids `[S-1]`, indexed by semantic class - 1 beside `other`."""
        return [category.id for category in self.stuff]

    @property
    def thing_class(self) -> dict[int, int]:
        """Dict: dataset id -> thing class 0..K-1."""
        return {category_id: k for k, category_id in enumerate(self.thing_ids)}

    def with_semantic_things(self, semantic_things: str) -> "CategoryTable":
        """Returns the same table for a semantic branch that predicts "other" or "all" things."""
        return dataclasses.replace(self, semantic_things=semantic_things)

    @property
    def num_semantic_things(self) -> int:
        """Number of the semantic classes that stand for things; stuff follows them."""
        return len(self.things) if self.semantic_things == "all" else 1

    @property
    def semantic_classes(self) -> dict[int, int]:
        """Dict: dataset id -> semantic class."""
        every = self.semantic_things == "all"
        classes = {category_id: k if every else 0 for k, category_id in enumerate(self.thing_ids)}
        first_stuff = self.num_semantic_things
        classes.update({c: first_stuff + s for s, c in enumerate(self.stuff_ids)})
        return classes

    @property
    def by_id(self) -> dict[int, Category]:
        """Dict: dataset id -> `Category`."""
        return {category.id: category for category in self.categories}

    @property
    def unique_names(self) -> dict[int, str]:
        """Dict: dataset id -> name, followed by the id where two categories share the name."""
        names = [category.name for category in self.categories]
        return {
            c.id: c.name if names.count(c.name) == 1 else f"{c.name} {c.id}"
            for c in self.categories
        }
