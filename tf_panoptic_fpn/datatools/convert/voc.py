"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and `SegmentationObject`."""

import os

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.datatools.convert.png_pairs import read_png_pairs

# The indices of the palette, from 1 on; 0 is the background.
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def read_voc(folder, categories=None):
    """Reads a folder in the layout of PASCAL VOC.

    The PNGs are read as indices of their palette. The outlines between objects, index 255 in both
    maps, are void.

    Args:
        folder: path, e.g. `VOCdevkit/VOC2012`.
        categories: `CategoryTable` by index; by default VOC's 20 classes, all things.

    Returns:
        A `Source`; `left_out` names the maps without partner.

    Raises:
        DataError: if one of the three folders is missing or there is no map.
    """
    if categories is None:
        categories = CategoryTable(tuple(Category(i, n, True) for i, n in enumerate(CLASSES, 1)))
    names = ("JPEGImages", "SegmentationClass", "SegmentationObject")
    return read_png_pairs(*(os.path.join(folder, name) for name in names), categories)
