"""Checks of a split in the COCO panoptic format, and its corrected JSON."""

import dataclasses
import os

from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.datatools.validate.components import count_parts
from tf_panoptic_fpn.datatools.validate.document import (
    check_categories,
    check_images,
    check_unused,
    image_of,
    is_thing,
    load_document,
    shown,
)
from tf_panoptic_fpn.datatools.validate.files import check_image, read_map
from tf_panoptic_fpn.datatools.validate.measures import compare_with_mask
from tf_panoptic_fpn.datatools.validate.rules import ERROR, RULES
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.formats.segment_map import tight_boxes, unique_ids

_TINY = 16  # pixels


def validate_panoptic(images_dir, panoptic_json, panoptic_dir):
    """Checks all that the JSON, the images and the maps of a COCO panoptic split say.

    The corrected JSON has areas and boxes of the maps and the sizes of the files. It lacks
    duplicates, segments that are not in the map, and images with an error that only an annotator
    can mend; what else the entries hold stays.

    Args:
        images_dir: folder of the images.
        panoptic_json: the JSON.
        panoptic_dir: folder of the PNGs.

    Returns:
        A `Validation`.

    Raises:
        DataError: if the JSON cannot be opened.
    """
    validation = Validation()
    findings, changes = validation.findings, validation.changes
    tree = load_document(panoptic_json, validation)
    if not tree:
        return validation
    categories = check_categories(tree["categories"], findings, with_isthing=True)
    images = check_images(tree["images"], findings)
    annotations = _annotations_by_image(tree["annotations"], images, findings)
    kept = {"images": images, "annotations": annotations, "categories": categories}
    validation.note_dropped(tree, kept)

    def check(image):
        annotation = annotations.get(image["id"])
        return _check(image, annotation, images_dir, panoptic_dir, categories)

    kept_images, kept_annotations = [], []
    entries = list(images.values())
    for image, checked in zip(entries, map_in_threads(check, entries, "validate"), strict=True):
        name = image["file_name"]
        findings.extend((rule, f"{name}: {text}") for rule, text in checked.breaches)
        validation.add_image(name, checked.digest, checked.void, checked.pixels)
        if checked.segments:
            changes.extend((kind, f"{name}: {text}") for kind, text in checked.changes)
            height, width = checked.size
            kept_images.append({**image, "height": height, "width": width})
            annotation = {**annotations[image["id"]], "segments_info": checked.segments}
            kept_annotations.append(annotation)
        else:
            reason = next(rule for rule, _ in checked.breaches if RULES[rule][0] == ERROR)
            changes.add("an image is left out", f"{name}: {RULES[reason][1]}")
    segments = [s for a in annotations.values() for s in a["segments_info"] if isinstance(s, dict)]
    check_unused(categories, [segment.get("category_id") for segment in segments], findings)
    validation.corrected = {
        **tree,
        "images": kept_images,
        "annotations": kept_annotations,
        "categories": list(categories.values()),
    }
    return validation


@dataclasses.dataclass
class _Checked:
    """What was found in one image; `segments` are the corrected ones, None if it is past that."""

    breaches: list
    changes: list = dataclasses.field(default_factory=list)
    segments: list | None = None
    size: tuple | None = None
    digest: bytes | None = None
    void: int = 0
    pixels: int = 0


def _annotations_by_image(entries, images, findings):
    """Dict: image id -> its first annotation, with a file name and a list of segments."""
    annotations, file_names = {}, set()
    for entry in entries:
        image_id = image_of(entry, images, findings)
        if image_id is None:
            continue
        file_name, segments = entry.get("file_name"), entry.get("segments_info")
        if not isinstance(file_name, str) or not isinstance(segments, list):
            findings.add(
                "entry", f"an annotation needs `file_name` and `segments_info`: {shown(entry)}"
            )
        elif image_id in annotations:
            findings.add("annotation_twice", f"image {images[image_id]['file_name']}")
        elif file_name in file_names:
            findings.add("file_twice", f"the map {file_name}")
        else:
            annotations[image_id] = entry
            file_names.add(file_name)
    return annotations


def _check(image, annotation, images_dir, panoptic_dir, categories):
    """Checks one image with its map; returns `_Checked`."""
    stated_size = (image["height"], image["width"])
    image_path = os.path.join(images_dir, image["file_name"])
    breaches, size, digest = check_image(image_path, stated_size)
    checked = _Checked(breaches, size=size, digest=digest)
    if annotation is None:
        breaches.append(("no_annotation", "no entry in `annotations`"))
        return checked
    png_name = annotation["file_name"]
    map_breaches, ids = read_map(os.path.join(panoptic_dir, png_name))
    breaches += [(rule, f"{png_name}: {text}") for rule, text in map_breaches]
    segments = _listed_segments(annotation, categories, checked)
    if ids is None:
        return checked
    if ids.shape != (size or stated_size):
        text = "{}: the map is {}x{} (HxW), the image {}x{}"
        breaches.append(("size", text.format(png_name, *ids.shape, *(size or stated_size))))
        return checked
    if size is not None and size != stated_size:
        checked.changes.append(("the size of an image is corrected", "{}x{}".format(*size)))
    checked.pixels = ids.size
    checked.void = int((ids == 0).sum())
    if checked.void > ids.size / 2:
        breaches.append(("void", f"{100 * checked.void / ids.size:.0f} %"))
    found = set(unique_ids(ids).tolist()) - {0}
    listed = [entry.get("id") for entry in annotation["segments_info"] if isinstance(entry, dict)]
    unlisted = [segment_id for segment_id in sorted(found) if segment_id not in listed]
    if unlisted:
        breaches.append(("unlisted_id", ", ".join(map(str, unlisted[:5]))))
    corrected = check_segments(ids, segments, categories, checked.breaches, checked.changes)
    if size is not None and found <= {segment["id"] for segment in segments}:
        checked.segments = corrected
    return checked


def _listed_segments(annotation, categories, checked):
    """The segments of an annotation that have an id and a category."""
    if not annotation["segments_info"]:
        checked.breaches.append(("no_segments", annotation["file_name"]))
    segments, seen = [], set()
    for entry in annotation["segments_info"]:
        breach = _segment_breach(entry, categories, seen)
        if breach:
            checked.breaches.append(breach)
            checked.changes.append(("a segment is dropped", breach[1]))
        else:
            seen.add(entry["id"])
            segments.append(entry)
    return segments


def _segment_breach(entry, categories, seen):
    if not isinstance(entry, dict):
        return "entry", f"a segment is not an object: {entry!r:.40}"
    segment_id, category_id = entry.get("id"), entry.get("category_id")
    if type(segment_id) is not int or type(category_id) is not int:
        return "entry", f"a segment needs an int `id` and `category_id`: {shown(entry)}"
    if not 0 < segment_id < 1 << 24:
        return "segment_id", f"segment {segment_id}"
    if segment_id in seen:
        return "segment_twice", f"segment {segment_id}"
    if category_id not in categories:
        return "unknown_category", f"segment {segment_id}: category id {category_id}"
    return None


def check_segments(ids, segments, categories, breaches, changes, shift=0):
    """Compares segments with their map.

    Args:
        ids: int `[H, W]`.
        segments: list of dicts with ids and categories that are known to be good.
        categories: dict: category id -> its entry in the JSON.
        breaches: list, added to: pairs of rule and text.
        changes: list, added to: pairs of a kind of change and text.
        shift: int, by how much ids are above those of the file.

    Returns:
        The corrected segments, a list of dicts.
    """
    segment_ids = [segment["id"] for segment in segments]
    boxes, areas = tight_boxes(ids, segment_ids)
    parts = count_parts(ids, segment_ids)
    corrected = []
    for segment, (y1, x1, y2, x2), area, num_parts in zip(
        segments, boxes, areas.tolist(), parts, strict=True
    ):
        category = categories[segment["category_id"]]
        where = f"segment {segment['id'] - shift} ({category['name']})"
        if area == 0:
            breaches.append(("absent_id", where))
            changes.append(("a segment is dropped", f"{where} is not in the map"))
            continue
        box = [int(x1), int(y1), int(x2 - x1), int(y2 - y1)]
        found, kept = compare_with_mask(segment, category, area, box, where)
        breaches += found
        if area < _TINY:
            breaches.append(("tiny", f"{where}: {area}"))
        if num_parts > 1 and is_thing(category) and not kept["iscrowd"]:
            breaches.append(("parts", f"{where}: {num_parts}"))
        changes += [
            (f"`{key}` of a segment is corrected", f"{where}: {kept[key]}")
            for key in ("area", "bbox", "iscrowd")
            if kept[key] is not segment.get(key)
        ]
        corrected.append(kept)
    return corrected
