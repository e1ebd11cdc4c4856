"""The labels of Cityscapes: helpers/labels.py of cityscapesScripts."""

import typing
from collections.abc import Callable


class Label(typing.NamedTuple):
    """One label; the position in `LABELS` is its id."""

    name: str
    category: str
    has_instances: bool = False
    is_ignored: bool = False  # in the ground truth; a prediction may hold it, and is wrong there
    color: tuple[int, int, int] | None = None  # RGB, of those that are not ignored


LABELS = (
    Label("unlabeled", "void", is_ignored=True),
    Label("ego vehicle", "void", is_ignored=True),
    Label("rectification border", "void", is_ignored=True),
    Label("out of roi", "void", is_ignored=True),
    Label("static", "void", is_ignored=True),
    Label("dynamic", "void", is_ignored=True),
    Label("ground", "void", is_ignored=True),
    Label("road", "flat", color=(128, 64, 128)),
    Label("sidewalk", "flat", color=(244, 35, 232)),
    Label("parking", "flat", is_ignored=True),
    Label("rail track", "flat", is_ignored=True),
    Label("building", "construction", color=(70, 70, 70)),
    Label("wall", "construction", color=(102, 102, 156)),
    Label("fence", "construction", color=(190, 153, 153)),
    Label("guard rail", "construction", is_ignored=True),
    Label("bridge", "construction", is_ignored=True),
    Label("tunnel", "construction", is_ignored=True),
    Label("pole", "object", color=(153, 153, 153)),
    Label("polegroup", "object", is_ignored=True),
    Label("traffic light", "object", color=(250, 170, 30)),
    Label("traffic sign", "object", color=(220, 220, 0)),
    Label("vegetation", "nature", color=(107, 142, 35)),
    Label("terrain", "nature", color=(152, 251, 152)),
    Label("sky", "sky", color=(70, 130, 180)),
    Label("person", "human", has_instances=True, color=(220, 20, 60)),
    Label("rider", "human", has_instances=True, color=(255, 0, 0)),
    Label("car", "vehicle", has_instances=True, color=(0, 0, 142)),
    Label("truck", "vehicle", has_instances=True, color=(0, 0, 70)),
    Label("bus", "vehicle", has_instances=True, color=(0, 60, 100)),
    Label("caravan", "vehicle", has_instances=True, is_ignored=True),
    Label("trailer", "vehicle", has_instances=True, is_ignored=True),
    Label("train", "vehicle", has_instances=True, color=(0, 80, 100)),
    Label("motorcycle", "vehicle", has_instances=True, color=(0, 0, 230)),
    Label("bicycle", "vehicle", has_instances=True, color=(119, 11, 32)),
)
FIRST_INSTANCE_ID = 1000  # instance id = 1000 * label id + number; below it, the label of a group


def label_ids(where: Callable[[Label], bool]) -> list[int]:
    """Ids of the labels for which `where(label)` is true, ascending."""
    return [label_id for label_id, label in enumerate(LABELS) if where(label)]
