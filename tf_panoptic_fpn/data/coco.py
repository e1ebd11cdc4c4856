"""Reading data sets in the COCO panoptic format."""

import dataclasses
import json
import os

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.data.images import read_image, read_panoptic_png
from tf_panoptic_fpn.data.segment_map import unique_ids
from tf_panoptic_fpn.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One segment, as the JSON lists it; `area` and `bbox_xywh` may be left out there."""

    id: int
    category_id: int
    is_crowd: bool = False
    area: int | None = None
    bbox_xywh: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: its files, its size in pixels and its segments."""

    image_id: int | str
    file_name: str
    image_path: str
    panoptic_path: str
    height: int
    width: int
    segments: tuple[Segment, ...]


@dataclasses.dataclass(frozen=True)
class PanopticSplit:
    """One split of a data set, in the order of its JSON."""

    categories: CategoryTable
    images: tuple[ImageRecord, ...]


def read_coco_panoptic(images_dir, panoptic_json, panoptic_dir):
    """Reads the JSON of a COCO panoptic split and checks that it and its folders hold together.

    No image is opened here: `load_segments` compares what the files hold with the JSON.

    Args:
        images_dir: folder of the images.
        panoptic_json: file with `images`, `annotations` (each with `segments_info`), `categories`.
        panoptic_dir: folder of the panoptic PNGs.

    Returns:
        A `PanopticSplit` of one or more images.

    Raises:
        DataError: if the JSON cannot be read, lacks a key or contradicts itself, or a file that it
            lists is missing.
    """
    tree = _load_json(panoptic_json)
    entries = {
        key: _list(tree, key, panoptic_json) for key in ("images", "annotations", "categories")
    }
    categories = CategoryTable.from_coco(entries["categories"], file=str(panoptic_json))
    if not entries["images"]:
        raise DataError(f"{panoptic_json}: the data set has no images")
    annotations = _annotations_by_image(entries["images"], entries["annotations"], panoptic_json)
    records = []
    for image in entries["images"]:
        annotation = annotations[image["id"]]
        file_name = _field(image, "file_name", str, panoptic_json)
        png_name = _field(annotation, "file_name", str, panoptic_json)
        records.append(
            ImageRecord(
                image_id=image["id"],
                file_name=file_name,
                image_path=os.path.join(images_dir, file_name),
                panoptic_path=os.path.join(panoptic_dir, png_name),
                height=_positive(image, "height", panoptic_json),
                width=_positive(image, "width", panoptic_json),
                segments=_segments(annotation, categories.by_id, file_name, panoptic_json),
            )
        )
    _check_files("image", [record.image_path for record in records], panoptic_json)
    _check_files("panoptic map", [record.panoptic_path for record in records], panoptic_json)
    return PanopticSplit(categories, tuple(records))


def load_segments(record):
    """Reads an image and its panoptic map.

    Args:
        record: an `ImageRecord`.

    Returns:
        `(image, ids)`: uint8 `[H, W, 3]` RGB, and int32 `[H, W]` segment ids, 0 being void.

    Raises:
        DataError: if a file cannot be decoded, the sizes of the two files and the JSON differ, or
            the ids in the PNG are not those of the JSON.
    """
    segment_ids = [segment.id for segment in record.segments]
    size = (record.height, record.width)
    return read_checked(record.image_path, record.panoptic_path, size, segment_ids)


def read_checked(image_path, panoptic_path, size, segment_ids):
    """Reads an image and its panoptic map, which must have this size and these ids.

    Args:
        image_path, panoptic_path: the two files.
        size: `(height, width)`, as the JSON says.
        segment_ids: ints, the ids that the JSON lists.

    Returns:
        As `load_segments`.

    Raises:
        DataError: as `load_segments`.
    """
    image = read_image(image_path)
    ids = read_panoptic_png(panoptic_path)
    for path, array in ((image_path, image), (panoptic_path, ids)):
        if array.shape[:2] != tuple(size):
            expected, received = ("{}x{}".format(*s) for s in (size, array.shape[:2]))
            raise DataError(
                f"{path}: the size must be {expected} (HxW), as in the JSON. Received: {received}"
            )
    found = unique_ids(ids)
    unlisted = np.setdiff1d(found[found > 0], segment_ids)
    if unlisted.size:
        raise DataError(f"{panoptic_path}: the map holds ids that the JSON lacks: {_few(unlisted)}")
    absent = np.setdiff1d(segment_ids, found)
    if absent.size:
        raise DataError(f"{panoptic_path}: the map lacks ids that the JSON lists: {_few(absent)}")
    return image, ids


def _load_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            tree = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise DataError(f"{path}: must hold a JSON object. Received: {type(tree).__name__}")
    return tree


def _list(tree, key, file):
    if key not in tree:
        raise DataError(f"{file}: the key `{key}` is missing")
    entries = tree[key]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{file}: `{key}` must be a list of objects")
    return entries


def _field(entry, key, kind, file):
    if key not in entry:
        shown = {k: v for k, v in entry.items() if not isinstance(v, (list, dict))}
        raise DataError(f"{file}: the key `{key}` is missing. Received: {shown}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise DataError(f"{file}: `{key}` must be {names}. Received: {value!r}")
    return value


def _positive(entry, key, file):
    value = _field(entry, key, int, file)
    if value <= 0:
        raise DataError(f"{file}: `{key}` must be above 0. Received: {value}")
    return value


def _annotations_by_image(images, annotations, file):
    """Dict: image id -> its only annotation."""
    image_ids = set()
    for image in images:
        image_id = _field(image, "id", (int, str), file)
        if image_id in image_ids:
            raise DataError(f"{file}: image ids must be unique. Received twice: {image_id}")
        image_ids.add(image_id)
    by_image = {}
    for annotation in annotations:
        image_id = _field(annotation, "image_id", (int, str), file)
        if image_id not in image_ids:
            raise DataError(
                f"{file}: an annotation is for image id {image_id}, which is not listed"
            )
        if image_id in by_image:
            raise DataError(f"{file}: image id {image_id} has more than one annotation")
        by_image[image_id] = annotation
    bare = [image["id"] for image in images if image["id"] not in by_image]
    if bare:
        raise DataError(f"{file}: images without annotation: {_few(bare)}")
    return by_image


def _segments(annotation, categories, file_name, file):
    segments, seen = [], set()
    for entry in _list(annotation, "segments_info", file):
        segment_id = _field(entry, "id", int, file)
        category_id = _field(entry, "category_id", int, file)
        if not 0 < segment_id < 1 << 24:
            raise DataError(
                f"{file}: {file_name}: a segment id must be in 1..2**24-1. Received: {segment_id}"
            )
        if segment_id in seen:
            raise DataError(f"{file}: {file_name}: the segment id {segment_id} occurs twice")
        if category_id not in categories:
            raise DataError(f"{file}: {file_name}: unknown category id {category_id}")
        seen.add(segment_id)
        bbox = entry.get("bbox")
        segments.append(
            Segment(
                id=segment_id,
                category_id=category_id,
                is_crowd=bool(entry.get("iscrowd", 0)),
                area=entry.get("area"),
                bbox_xywh=None if bbox is None else tuple(bbox),
            )
        )
    if not segments:
        raise DataError(f"{file}: {file_name}: the annotation has no segments")
    return tuple(segments)


def _check_files(what, paths, file):
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{missing[0]}: the {what} file is missing "
            f"({len(missing)} of the {len(paths)} that {file} lists)"
        )


def _few(ids):
    """The first ids as text, so that the message stays on one line."""
    text = ", ".join(str(i) for i in ids[:5])
    return text if len(ids) <= 5 else f"{text} and {len(ids) - 5} more"
