"""What kind of annotations a folder holds, by its layout."""

import os
import pathlib

from tf_panoptic_fpn.convert.labelme import read_labelme_file
from tf_panoptic_fpn.convert.roboflow import find_splits
from tf_panoptic_fpn.convert.voc import voc_folders
from tf_panoptic_fpn.convert.yolo import find_yolo_file
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.folders import list_files

_TRIED = 20  # JSON files, to find one of LabelMe's


def recognise(folder: str | os.PathLike) -> str:
    """Finds the source of a folder.

    Returns:
        "roboflow", "yolo", "voc", "labelme" or "datumaro" (an XML of CVAT).

    Raises:
        DataError: if there is no such folder.
        ConfigError: if it is none of these.
    """
    names = list_files(folder)
    if find_splits(folder):
        return "roboflow"
    if find_yolo_file(folder):
        return "yolo"
    if all(map(os.path.isdir, voc_folders(folder))):
        return "voc"
    if any(_is_labelme(os.path.join(folder, n)) for n in _of_kind(names, ".json")[:_TRIED]):
        return "labelme"
    if any(_is_cvat(os.path.join(folder, n)) for n in _of_kind(names, ".xml")[:_TRIED]):
        return "datumaro"
    hint = ""
    if _of_kind(names, ".json"):
        hint = "; a COCO JSON takes --source=coco --images=DIR --instances-json=FILE"
    raise ConfigError(f"{folder}: --source must say what this is{hint}")


def _of_kind(names, suffix):
    return [name for name in names if name.lower().endswith(suffix)]


def _is_labelme(path):
    try:
        return bool(read_labelme_file(path))
    except DataError:
        return False


def _is_cvat(path):
    return "<annotations" in pathlib.Path(path).read_text(encoding="utf-8", errors="replace")[:500]
