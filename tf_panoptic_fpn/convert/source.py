"""What the reader of each kind of annotation returns."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.masks.segment_map import tight_boxes

# What tools call a split: what it is called here.
SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """The panoptic map of one image.

    `ids` is int32 `[H, W]`, 0 being void; `segments` maps each id in it to `(category_id,
    is_crowd)`; `left_out` says of each annotation without a pixel in the map what it is and why;
    `void`, bool `[H, W]` or None, is what the annotation says is void, unlike what it leaves out.
    """

    ids: np.ndarray
    segments: dict[int, tuple[int, bool]]
    left_out: tuple[str, ...] = ()
    void: np.ndarray | None = None

    def without(self, faults: Iterable[str]) -> "Drawing":
        """Returns the drawing with more that is left out."""
        return dataclasses.replace(self, left_out=(*faults, *self.left_out))

    def segments_info(self) -> list[dict[str, Any]]:
        """Returns the segments as a COCO panoptic JSON lists them."""
        boxes, areas = tight_boxes(self.ids, list(self.segments))
        return [
            {
                "id": segment_id,
                "category_id": category_id,
                "iscrowd": int(is_crowd),
                "area": area,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for (segment_id, (category_id, is_crowd)), (y1, x1, y2, x2), area in zip(
                self.segments.items(), boxes.astype(int).tolist(), areas.tolist(), strict=True
            )
        ]


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image; `draw(size, categories)` returns its `Drawing` or raises DataError.

    `file_name` is the image's path below `Source.images_dir`. `read_bytes()` returns the image file
    where it is embedded in the annotation and there is none in the folder. `split` is "train",
    "validation" or "test" where the annotations are divided already.
    """

    image_id: int | str
    file_name: str
    draw: Callable[[tuple[int, int], CategoryTable], Drawing]
    read_bytes: Callable[[], bytes] | None = None
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """Annotated images, and what cannot be used: a dict of file name to the reason, or reasons.

    `notes` are lines for the reader: what is taken for what, and which files were not read.
    """

    categories: CategoryTable
    images_dir: str
    images: tuple[SourceImage, ...]
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    annotations_left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


class SizeError(DataError):
    """The size that an annotation states is not that of its image."""


def check_size(what: str, stated: Sequence[int], size: Sequence[int]) -> None:
    """Raises SizeError if the stated `(height, width)` is not that of the upright image."""
    if tuple(stated) != tuple(size):
        sizes = "{}x{} (HxW), the image is {}x{}".format(*stated, *size)
        raise SizeError(f"{what} says {sizes}")


def declare_stuff(
    categories: CategoryTable, stuff: Sequence[str], background: str | None = None
) -> CategoryTable:
    """Makes stuff of categories, the others staying what they are.

    Args:
        categories: of the data set.
        stuff: names of categories.
        background: name of the stuff that fills what is not annotated; added if it is new.

    Raises:
        ConfigError: if no category has a name of `stuff`.
    """
    entries = list(categories.categories)
    names = [category.name for category in entries]
    for name in stuff:
        if name not in names:
            raise ConfigError(f"--stuff must be one of {', '.join(names)}. Received: {name}")
    if background is not None and background not in names:
        entries.append(Category(max((c.id for c in entries), default=0) + 1, background, False))
    changed = {*stuff, background}
    things = [c.is_thing and c.name not in changed for c in entries]
    return CategoryTable(
        tuple(dataclasses.replace(c, is_thing=t) for c, t in zip(entries, things, strict=True))
    )
