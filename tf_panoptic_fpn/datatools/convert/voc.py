"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and `SegmentationObject`."""

from tf_panoptic_fpn.datatools.convert.png_pairs import read_png_pairs
from tf_panoptic_fpn.formats.voc import CATEGORIES, VOID, voc_folders


def read_voc(folder, categories=None):
    """Reads a folder in the layout of PASCAL VOC; 255 is void.

    Args:
        folder: path, e.g. `VOCdevkit/VOC2012`.
        categories: `CategoryTable` by index; by default VOC's 20 classes, all things.

    Returns:
        A `Source`; `left_out` names the maps without partner.

    Raises:
        DataError: if one of the three folders is missing or there is no map.
    """
    return read_png_pairs(*voc_folders(folder), categories or CATEGORIES, (VOID,))
