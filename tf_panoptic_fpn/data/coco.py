"""Reading data sets in the COCO panoptic format."""

import json
import os

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.data.split import ImageRecord, PanopticSplit, Segment, few
from tf_panoptic_fpn.errors import DataError


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
        raise DataError(f"{file}: images without annotation: {few(bare)}")
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
