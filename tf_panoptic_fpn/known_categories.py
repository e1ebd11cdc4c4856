"""The categories of COCO and Cityscapes, for models that come without a list of theirs."""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.cityscapes_labels import LABELS

COCO_FILE = pathlib.Path(__file__).parent / "categories_coco.json"
TORCHVISION_CLASSES = 90  # COCO's instance ids 1..90, of which 10 are of no category


def coco_categories() -> CategoryTable:
    """COCO's panoptic categories: 80 things and 53 stuff, with their ids and colours."""
    return CategoryTable.load(COCO_FILE)


def cityscapes_categories() -> CategoryTable:
    """Cityscapes' classes: 8 things and 11 stuff, with their label ids and colours."""
    return CategoryTable(
        tuple(
            Category(label_id, label.name, label.has_instances, label.color)
            for label_id, label in enumerate(LABELS)
            if not label.is_ignored
        )
    )


def known_tables() -> list[tuple[str, CategoryTable]]:
    """The data sets that a model may be of: name and categories."""
    return [
        ("COCO", coco_categories()),
        ("Cityscapes", cityscapes_categories()),
        ("COCO's instances", _coco_instances_with_gaps()),
    ]


def categories_of_model(config: Mapping[str, Any], name: str) -> CategoryTable:
    """The categories of the data set that has as many classes as a model; says on stderr which.

    Args:
        config: the arguments of a `PanopticFPN`: `tasks`, `num_thing_classes`, ...
        name: of the model, for messages.

    Returns:
        A `CategoryTable`.

    Raises:
        ConfigError: if no known data set has as many.
    """
    things = config["num_thing_classes"] if "instance" in config["tasks"] else None
    stuff = config["num_stuff_classes"] if "semantic" in config["tasks"] else None
    for title, table in known_tables():
        if _fits(things, len(table.things)) and _fits(stuff, len(table.stuff)):
            print(
                f"{name}: as many classes as {title}, whose categories are taken", file=sys.stderr
            )
            return _of_tasks(table, config)
    raise ConfigError(
        f"{name}: brings no categories and is of no known data set; give them (--categories). "
        f"Received: {things or 0} thing and {stuff or 0} stuff classes"
    )


def _fits(number: int | None, of_table: int) -> bool:
    return number is None or number == of_table


def _of_tasks(table: CategoryTable, config: Mapping[str, Any]) -> CategoryTable:
    """Without the categories of a task that the model does not have."""
    kinds = {"instance": True, "semantic": False}
    kept = {kinds[task] for task in config["tasks"]}
    if config["semantic_things"] == "all":
        kept.add(True)
    return CategoryTable(tuple(c for c in table.categories if c.is_thing in kept))


def _coco_instances_with_gaps() -> CategoryTable:
    known = coco_categories().by_id
    return CategoryTable(
        tuple(
            known[i] if i in known else Category(i, f"no category {i}", True)
            for i in range(1, TORCHVISION_CLASSES + 1)
        )
    )
