"""The layout of PASCAL VOC: `JPEGImages`, `SegmentationClass` and `SegmentationObject`."""

import os

from tf_panoptic_fpn.categories import Category, CategoryTable

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
CATEGORIES = CategoryTable(tuple(Category(i, name, True) for i, name in enumerate(CLASSES, 1)))
VOID = 255  # the outlines between objects, in both maps


def voc_folders(folder):
    """Returns the paths of the images, the maps of classes and the maps of instances.

    The PNGs are read as indices of their palette, see `find_png_pairs`.

    Args:
        folder: path, e.g. `VOCdevkit/VOC2012`.
    """
    names = ("JPEGImages", "SegmentationClass", "SegmentationObject")
    return tuple(os.path.join(folder, name) for name in names)
