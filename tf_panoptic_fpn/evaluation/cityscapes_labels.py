"""The labels of Cityscapes, as its scores use them."""

import typing


class Label(typing.NamedTuple):
    """One label; the position in `LABELS` is its id."""

    name: str
    category: str
    has_instances: bool = False
    is_ignored: bool = False  # in the ground truth; a prediction may hold it, and is wrong there


LABELS = (
    Label("unlabeled", "void", is_ignored=True),
    Label("ego vehicle", "void", is_ignored=True),
    Label("rectification border", "void", is_ignored=True),
    Label("out of roi", "void", is_ignored=True),
    Label("static", "void", is_ignored=True),
    Label("dynamic", "void", is_ignored=True),
    Label("ground", "void", is_ignored=True),
    Label("road", "flat"),
    Label("sidewalk", "flat"),
    Label("parking", "flat", is_ignored=True),
    Label("rail track", "flat", is_ignored=True),
    Label("building", "construction"),
    Label("wall", "construction"),
    Label("fence", "construction"),
    Label("guard rail", "construction", is_ignored=True),
    Label("bridge", "construction", is_ignored=True),
    Label("tunnel", "construction", is_ignored=True),
    Label("pole", "object"),
    Label("polegroup", "object", is_ignored=True),
    Label("traffic light", "object"),
    Label("traffic sign", "object"),
    Label("vegetation", "nature"),
    Label("terrain", "nature"),
    Label("sky", "sky"),
    Label("person", "human", has_instances=True),
    Label("rider", "human", has_instances=True),
    Label("car", "vehicle", has_instances=True),
    Label("truck", "vehicle", has_instances=True),
    Label("bus", "vehicle", has_instances=True),
    Label("caravan", "vehicle", has_instances=True, is_ignored=True),
    Label("trailer", "vehicle", has_instances=True, is_ignored=True),
    Label("train", "vehicle", has_instances=True),
    Label("motorcycle", "vehicle", has_instances=True),
    Label("bicycle", "vehicle", has_instances=True),
)
FIRST_INSTANCE_ID = 1000  # instance id = 1000 * label id + number; below it, the label of a group


def label_ids(where):
    """Ids of the labels for which `where(label)` is true.

    Args:
        where: function of a `Label`.

    Returns:
        list of ints, ascending.
    """
    return [label_id for label_id, label in enumerate(LABELS) if where(label)]
