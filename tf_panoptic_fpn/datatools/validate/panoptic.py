"""Checks of a split in the COCO panoptic format, and its corrected JSON."""

import collections
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.datatools.validate.classes import check_classes
from tf_panoptic_fpn.datatools.validate.corrections import corrected_lists, corrections
from tf_panoptic_fpn.datatools.validate.files import check_image, read_map
from tf_panoptic_fpn.datatools.validate.findings import Changes
from tf_panoptic_fpn.datatools.validate.measures import compare_with_mask
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.formats.breaches import ERROR, RULES
from tf_panoptic_fpn.formats.coco_json import category_table, images_by_id
from tf_panoptic_fpn.formats.coco_panoptic import panoptic_annotations
from tf_panoptic_fpn.formats.json_file import Entry, read_lists
from tf_panoptic_fpn.formats.records import Segment
from tf_panoptic_fpn.masks.components import count_parts
from tf_panoptic_fpn.masks.segment_map import tight_boxes, unique_ids

_TINY = 16  # pixels


def validate_panoptic(
    images_dir: str | os.PathLike, panoptic_json: str | os.PathLike, panoptic_dir: str | os.PathLike
) -> Validation:
    """Checks all that the JSON, the images and the maps of a COCO panoptic split say.

    The corrected JSON has areas and boxes of the maps, the sizes of the files and plain numbers for
    what was read as such. It lacks duplicates, segments that are not in the map, and images with an
    error that only an annotator can mend; what else the entries hold stays.

    Args:
        images_dir: folder of the images.
        panoptic_json: the JSON.
        panoptic_dir: folder of the PNGs.

    Raises:
        DataError: if the JSON cannot be opened.
    """
    validation, others = Validation(), Entry()
    findings, changes = validation.findings, validation.changes
    lists = read_lists(panoptic_json, ("images", "categories"), findings, others)
    if lists is None:
        return validation
    table = category_table(lists["categories"], panoptic_json, findings, is_panoptic=True)
    images = images_by_id(lists["images"], panoptic_json, findings)
    annotations = {
        annotation.image_id: annotation
        for annotation in panoptic_annotations(panoptic_json, table, findings, images)
    }
    validation.note_left_out(findings)
    categories, entries = corrected_lists(panoptic_json, table, images, changes)

    def check(image_id):
        annotation = annotations.get(image_id)
        return _check(images[image_id], annotation, images_dir, panoptic_dir, table)

    kept_images, kept_annotations = [], []
    for image_id, checked in zip(
        images, map_in_threads(check, list(images), "validate"), strict=True
    ):
        name = images[image_id][0]
        findings.extend((rule, f"{name}: {text}") for rule, text in checked.breaches)
        validation.add_image(name, checked.digest, checked.void, checked.pixels)
        if checked.segments:
            changes.merge(checked.changes)
            height, width = checked.size
            kept_images.append({**entries[image_id], "height": height, "width": width})
            annotation = annotations[image_id]
            read = {"image_id": image_id, "file_name": annotation.file_name}
            changed = corrections(annotation.entry, read, name, changes, "an annotation")
            kept_annotations.append(
                {**annotation.entry, **changed, "segments_info": checked.segments}
            )
        else:
            reason = next((r for r, _ in checked.breaches if RULES[r][0] == ERROR), "no_segments")
            changes.add("an image is left out", f"{name}: {RULES[reason][1]}")
    crowds = collections.defaultdict(list)
    for annotation in annotations.values():
        for segment in annotation.segments:
            crowds[segment.category_id].append(segment.is_crowd)
    check_classes(table, crowds, findings)
    validation.corrected = {
        **others,
        "images": kept_images,
        "annotations": kept_annotations,
        "categories": categories,
    }
    return validation


@dataclasses.dataclass
class _Checked:
    """What was found in one image; `segments` are the corrected ones, None if it is past that."""

    breaches: list
    changes: Changes = dataclasses.field(default_factory=Changes)
    segments: list | None = None
    size: tuple | None = None
    digest: bytes | None = None
    void: int = 0
    pixels: int = 0


def _check(image, annotation, images_dir, panoptic_dir, table):
    """Checks one image with its map; returns `_Checked`."""
    file_name, *stated_size = image
    stated_size = tuple(stated_size)
    breaches, size, digest = check_image(os.path.join(images_dir, file_name), stated_size)
    checked = _Checked(breaches, size=size, digest=digest)
    if annotation is None:
        breaches.append(("no_annotation", "no entry in `annotations`"))
        return checked
    png_name = annotation.file_name
    map_breaches, ids = read_map(os.path.join(panoptic_dir, png_name))
    breaches += [(rule, f"{png_name}: {text}") for rule, text in map_breaches]
    if ids is None:
        return checked
    if ids.shape != (size or stated_size):
        text = "{}: the map is {}x{} (HxW), the image {}x{}"
        breaches.append(("size", text.format(png_name, *ids.shape, *(size or stated_size))))
        return checked
    if size is not None and size != stated_size:
        text = "{}: {}x{}".format(file_name, *size)
        checked.changes.add("the size of an image is corrected", text)
    checked.pixels = ids.size
    checked.void = int((ids == 0).sum())
    if checked.void > ids.size / 2:
        breaches.append(("void", f"{100 * checked.void / ids.size:.0f} %"))
    found = set(unique_ids(ids).tolist()) - {0}
    entries = annotation.entry["segments_info"]
    good = {segment.id for segment in annotation.segments}
    listed = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    unlisted = [i for i in sorted(found) if i not in good and i not in listed]
    if unlisted:
        breaches.append(("unlisted_id", ", ".join(map(str, unlisted[:5]))))
    corrected, compared = compare_segments(
        ids, annotation.segments, annotation.segment_entries, table, checked.changes, file_name
    )
    breaches += compared
    if size is not None and found <= good:
        checked.segments = corrected
    return checked


def compare_segments(
    ids: np.ndarray,
    segments: Sequence[Segment],
    entries: Sequence[Entry],
    table: CategoryTable,
    changes: Changes,
    file_name: str,
    first_id: int = 0,
) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Compares segments with their map.

    Args:
        ids: int `[H, W]`.
        segments: what was read.
        entries: that of the JSON for each.
        table: of their categories.
        changes: added to.
        file_name: of the image.
        first_id: what the map's values are above those of its file.

    Returns:
        `(corrected, breaches)`: entries, and pairs of rule and text.
    """
    segment_ids = [segment.id for segment in segments]
    boxes, areas = tight_boxes(ids, segment_ids)
    parts = count_parts(ids, segment_ids)
    corrected, breaches = [], []
    for segment, entry, (y1, x1, y2, x2), area, num_parts in zip(
        segments, entries, boxes, areas.tolist(), parts, strict=True
    ):
        category = table.by_id[segment.category_id]
        where = f"segment {segment.id - first_id} ({category.name})"
        if area == 0:
            breaches.append(("absent_id", where))
            changes.add("a segment is dropped", f"{file_name}: {where} is not in the map")
            continue
        box = [int(x1), int(y1), int(x2 - x1), int(y2 - y1)]
        found, values = compare_with_mask(entry, segment, category, area, box, where)
        breaches += found
        if area < _TINY:
            breaches.append(("tiny", f"{where}: {area}"))
        if num_parts > 1 and category.is_thing and not values["iscrowd"]:
            breaches.append(("parts", f"{where}: {num_parts}"))
        values |= {"id": segment.id, "category_id": segment.category_id}
        changed = corrections(entry, values, f"{file_name}: {where}", changes, "a segment")
        corrected.append({**entry, **changed})
    return corrected, breaches
