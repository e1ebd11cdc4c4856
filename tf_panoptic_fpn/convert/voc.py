"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and `SegmentationObject`."""

import os

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.convert.png_pairs import read_png_pairs
from tf_panoptic_fpn.convert.source import Source

# The indices of the palette, from 1 on; 0 is the background.
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_VOID = 255  # the outlines between objects, in both maps


def voc_folders(folder: str | os.PathLike) -> tuple[str, ...]:
    """Returns the paths of the images, the maps of classes and the maps of instances."""
    names = ("JPEGImages", "SegmentationClass", "SegmentationObject")
    return tuple(os.path.join(folder, name) for name in names)


def read_voc(folder: str | os.PathLike, categories: CategoryTable | None = None) -> Source:
    """Reads a folder in the layout of PASCAL VOC; 255 is void.

    Args:
        folder: path, e.g. `VOCdevkit/VOC2012`.
        categories: by index of the palette; by default VOC's 20 classes, all things.

    Returns:
        A `Source`; `left_out` names the maps without partner.

    Raises:
        DataError: if one of the three folders is missing or there is no map.
    """
    if categories is None:
        classes = enumerate(CLASSES, 1)
        categories = CategoryTable(tuple(Category(i, name, True) for i, name in classes))
    images_dir, semantic_dir, instance_dir = voc_folders(folder)
    return read_png_pairs(images_dir, semantic_dir, instance_dir, categories, (_VOID,))
