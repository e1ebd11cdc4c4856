"""Checks of a split in the COCO instances format, and its corrected JSON."""

import collections
import dataclasses
import math
import os

from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.datatools.validate.classes import check_classes
from tf_panoptic_fpn.datatools.validate.corrections import corrected_lists, corrections
from tf_panoptic_fpn.datatools.validate.files import check_image
from tf_panoptic_fpn.datatools.validate.findings import Changes, Findings
from tf_panoptic_fpn.datatools.validate.measures import compare_with_mask
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.formats.breaches import ERROR, RULES
from tf_panoptic_fpn.formats.coco_instances import CocoInstances
from tf_panoptic_fpn.masks.rle import good_polygons, mask_area, mask_box

_BOX_TOLERANCE = 2  # pixels; a polygon's box has fractions, its mask has not
_OUTSIDE_TOLERANCE = 1  # pixels


def validate_instances(
    images_dir: str | os.PathLike, instances_json: str | os.PathLike
) -> Validation:
    """Checks all that the JSON and the images of a COCO instances split say.

    The corrected JSON has areas and boxes of the masks, the sizes of the files and plain numbers
    for what was read as such. It lacks annotations whose mask cannot be used and images that cannot
    be read; annotations that have a box alone stay as they are.

    Args:
        images_dir: folder of the images.
        instances_json: the JSON.

    Raises:
        DataError: if the JSON cannot be opened.
    """
    validation = Validation()
    findings, changes = validation.findings, validation.changes
    file = CocoInstances(instances_json, findings, things_only=False, corrects=True)
    validation.note_left_out(findings)
    if not file.images:
        return validation
    categories, entries = corrected_lists(instances_json, file.categories, file.images, changes)

    def check(image_id):
        return _check(images_dir, image_id, file)

    images, annotations, crowds = [], [], collections.defaultdict(list)
    checks = map_in_threads(check, list(file.images), "validate")
    for image_id, checked in zip(file.images, checks, strict=True):
        name = file.images[image_id][0]
        findings.extend((rule, f"{name}: {text}") for rule, text in checked.image_breaches)
        findings.merge(checked.findings)
        validation.add_image(name, checked.digest)
        errors = [rule for rule, _ in checked.image_breaches if RULES[rule][0] == ERROR]
        if errors:
            changes.add("an image is left out", f"{name}: {RULES[errors[0]][1]}")
        else:
            validation.note_left_out(checked.findings)
            changes.merge(checked.changes)
            images.append(entries[image_id])
            annotations += checked.annotations
        for annotation in checked.annotations:
            crowds[annotation["category_id"]].append(annotation.get("iscrowd"))
    check_classes(file.categories, crowds, findings)
    validation.corrected = {
        **file.others,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    return validation


@dataclasses.dataclass
class _Checked:
    """What was found in one image: in its file, then in its annotations, which are corrected."""

    image_breaches: list
    digest: bytes | None
    findings: Findings = dataclasses.field(default_factory=Findings)
    changes: Changes = dataclasses.field(default_factory=Changes)
    annotations: list = dataclasses.field(default_factory=list)


def _check(images_dir, image_id, file):
    """Checks one image with its annotations; returns `_Checked`."""
    file_name, *size = file.images[image_id]
    image_breaches, _, digest = check_image(os.path.join(images_dir, file_name), tuple(size))
    checked = _Checked(image_breaches, digest)
    findings, masks, found = checked.findings, {}, False
    for entry, read in file.entries_of_image(image_id, breaches=findings):
        found = True
        if read is None:
            continue
        category = file.categories.by_id[read.category_id]
        where = f"{file_name}: annotation {read.id} ({category.name})"
        values = {"id": read.id, "image_id": image_id, "category_id": read.category_id}
        if read.rle is None:  # it has a box alone
            *_, width, height = read.bbox_xywh
            area = width * height if read.area is None else read.area
            values |= {"iscrowd": int(read.is_crowd), "area": area, "bbox": list(read.bbox_xywh)}
        else:
            key = (read.category_id, read.rle["counts"])
            if key in masks:
                findings.note("same_mask", f"{where} and {masks[key]}")
            masks[key] = where
            values |= _measure(entry, read, category, size, where, findings)
        changed = corrections(entry, values, where, checked.changes, "an annotation")
        checked.annotations.append({**entry, **changed})
    if not found:
        findings.note("no_instances", f"{file_name}: no annotation")
    return checked


def _measure(entry, read, category, size, where, findings):
    """As `compare_with_mask`, by the ways of tools to rasterise and to count."""
    area, box, area_tolerance = mask_area(read.rle), mask_box(read.rle), 0
    box = [int(value) for value in box]
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        area_tolerance = max(0.1 * area, (box[2] + box[3]) / 2)  # half the pixels of the outline
        segmentation = good_polygons(segmentation, size)
        left, top, right, bottom = _extent(segmentation)
        outside = max(-left, -top, right - size[1], bottom - size[0])
        if outside > _OUTSIDE_TOLERANCE:
            findings.note("partly_outside", f"{where}: by {outside:.1f} pixels")
        left, top = max(left, 0), max(top, 0)
        box = [left, top, min(right, size[1]) - left, min(bottom, size[0]) - top]
    if read.is_crowd:  # the areas of COCO's own crowds count something else
        area_tolerance = math.inf
    breaches, values = compare_with_mask(
        entry, read, category, area, box, where, area_tolerance, _BOX_TOLERANCE
    )
    findings.extend(breaches)
    return {**values, "segmentation": segmentation}


def _extent(polygons):
    """Left, top, right and bottom of polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
