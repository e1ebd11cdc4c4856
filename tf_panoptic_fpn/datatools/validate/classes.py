"""Checks of what a data set holds of each class."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.datatools.validate.findings import Findings


def check_classes(
    categories: CategoryTable, crowds: Mapping[int, Sequence[Any]], findings: Findings
) -> None:
    """Names the categories that no annotation has, and those of which nothing can be learned.

    Args:
        categories: of the data set.
        crowds: category id -> whether each of its annotations is a crowd.
        findings: added to.
    """
    for category in categories.categories:
        name = f"{category.name} (id {category.id})"
        found = crowds.get(category.id)
        if not found:
            findings.note("unused", name)
        elif category.is_thing and all(found):
            text = f"{len(found)} of {len(found)} annotations; `iscrowd` is 0 for a single object"
            findings.note("all_crowds", f"{name}: {text}")
