"""The weights of classes in the losses, from their names."""

from collections.abc import Mapping

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.messages import few
from tf_panoptic_fpn.models.losses import ClassWeights


def class_weights(weights: Mapping[str, float], categories: CategoryTable) -> ClassWeights | None:
    """Returns the weight of each class in the box head and in the semantic branch.

    Background, `other` and classes without a name in `weights` have 1. With
    `model.semantic_things: all` a thing's weight holds in both branches.

    Args:
        weights: dict: name of a category -> weight.
        categories: `CategoryTable`.

    Returns:
        `ClassWeights`; None where no weight is given.

    Raises:
        ConfigError: if a name is no category's.
    """
    if not weights:
        return None
    names = categories.unique_names
    unknown = [name for name in weights if name not in names.values()]
    if unknown:
        raise ConfigError(
            f"`train.class_weights` must name categories of the training data, such as "
            f"{few(list(names.values()))}. Received: {unknown!r}"
        )
    things = [weights.get(names[category_id], 1.0) for category_id in categories.thing_ids]
    every = categories.semantic_things == "all"
    others = things if every else [1.0]
    stuff = [weights.get(names[category_id], 1.0) for category_id in categories.stuff_ids]
    return ClassWeights(things=(*things, 1.0), semantic=(*others, *stuff))
