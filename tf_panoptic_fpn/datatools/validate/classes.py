"""Checks of what a data set holds of each class."""


def check_classes(categories, crowds, findings):
    """Names the categories that no annotation has, and those of which nothing can be learned.

    Args:
        categories: `CategoryTable`.
        crowds: dict: category id -> list, whether each of its annotations is a crowd.
        findings: `Findings`, added to.
    """
    for category in categories.categories:
        name = f"{category.name} (id {category.id})"
        found = crowds.get(category.id)
        if not found:
            findings.note("unused", name)
        elif category.is_thing and all(found):
            text = f"{len(found)} of {len(found)} annotations; `iscrowd` is 0 for a single object"
            findings.note("all_crowds", f"{name}: {text}")
