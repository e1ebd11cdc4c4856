"""Checks of a split in the COCO instances format, and its corrected JSON."""

import collections
import dataclasses
import math
import os

from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.datatools.validate.document import (
    check_categories,
    check_images,
    check_unused,
    image_of,
    load_document,
    shown,
)
from tf_panoptic_fpn.datatools.validate.files import check_image
from tf_panoptic_fpn.datatools.validate.measures import compare_with_mask
from tf_panoptic_fpn.datatools.validate.rules import ERROR, RULES
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.segmentation import runs_area, runs_box, segmentation_runs

_BOX_TOLERANCE = 2  # pixels; a polygon's box has fractions, its mask has not
_OUTSIDE_TOLERANCE = 1  # pixels


def validate_instances(images_dir, instances_json):
    """Checks all that the JSON and the images of a COCO instances split say.

    The corrected JSON has areas and boxes of the masks and the sizes of the files. It lacks
    annotations without a usable mask and images that cannot be read.

    Args:
        images_dir: folder of the images.
        instances_json: the JSON.

    Returns:
        A `Validation`.

    Raises:
        DataError: if the JSON cannot be opened.
    """
    validation = Validation()
    findings, changes = validation.findings, validation.changes
    tree = load_document(instances_json, validation)
    if not tree:
        return validation
    categories = check_categories(tree["categories"], findings, with_isthing=False)
    images = check_images(tree["images"], findings)
    by_image = _annotations_by_image(tree["annotations"], images, categories, validation)
    validation.note_dropped(tree, {"images": images, "categories": categories})

    def check(image):
        path = os.path.join(images_dir, image["file_name"])
        return _check(path, image, by_image[image["id"]], categories)

    kept_images, kept_annotations = [], []
    entries = list(images.values())
    for image, checked in zip(entries, map_in_threads(check, entries, "validate"), strict=True):
        name = image["file_name"]
        findings.extend((rule, f"{name}: {text}") for rule, text in checked.breaches)
        validation.add_image(name, checked.digest)
        errors = [rule for rule, _ in checked.image_breaches if RULES[rule][0] == ERROR]
        if errors:
            changes.add("an image is left out", f"{name}: {RULES[errors[0]][1]}")
        else:
            changes.extend((kind, f"{name}: {text}") for kind, text in checked.changes)
            kept_images.append(image)
            kept_annotations += checked.annotations
    check_unused(categories, {a["category_id"] for a in kept_annotations}, findings)
    validation.corrected = {
        **tree,
        "images": kept_images,
        "annotations": kept_annotations,
        "categories": list(categories.values()),
    }
    return validation


@dataclasses.dataclass
class _Checked:
    """What was found in one image: in its file, then in its annotations, which are corrected."""

    image_breaches: list
    digest: bytes | None
    breaches: list
    changes: list = dataclasses.field(default_factory=list)
    annotations: list = dataclasses.field(default_factory=list)


def _annotations_by_image(entries, images, categories, validation):
    """Dict: image id -> its annotations whose id, image and category are known."""
    findings, changes = validation.findings, validation.changes
    by_image, seen = collections.defaultdict(list), set()
    for entry in entries:
        annotation_id, category_id = entry.get("id"), entry.get("category_id")
        image_id = image_of(entry, images, findings)
        if image_id is not None:
            if type(annotation_id) not in (int, str) or type(category_id) is not int:
                findings.add("entry", f"an annotation needs `id` and `category_id`: {shown(entry)}")
            elif annotation_id in seen:
                findings.add("annotation_twice", f"annotation {annotation_id}")
            elif category_id not in categories:
                text = f"annotation {annotation_id}: category id {category_id}"
                findings.add("unknown_category", text)
            else:
                seen.add(annotation_id)
                by_image[image_id].append(entry)
                continue
        changes.add("an annotation is dropped", shown(entry))
    return by_image


def _check(path, image, annotations, categories):
    """Checks one image with its annotations; returns `_Checked`."""
    size = (image["height"], image["width"])
    image_breaches, _, digest = check_image(path, size)
    checked = _Checked(image_breaches, digest, breaches=list(image_breaches))
    if not annotations:
        checked.breaches.append(("no_instances", "no annotation"))
    masks = {}
    for annotation in annotations:
        category = categories[annotation["category_id"]]
        where = f"annotation {annotation['id']} ({category['name']})"
        breaches, segmentation, runs = _read_mask(annotation.get("segmentation"), size, where)
        checked.breaches += breaches
        if runs is None:
            checked.changes.append(("an annotation is dropped", where))
            continue
        key = (annotation["category_id"], runs.tobytes())
        if key in masks:
            checked.breaches.append(("same_mask", f"{where} and {masks[key]}"))
        masks[key] = where
        whole = {**annotation, "segmentation": segmentation}
        breaches, kept = _compare(whole, category, runs, size, where)
        checked.breaches += breaches
        checked.changes += [
            (f"`{key}` of an annotation is corrected", where)
            for key in ("area", "bbox", "iscrowd", "segmentation")
            if kept[key] is not annotation.get(key)
        ]
        checked.annotations.append(kept)
    return checked


def _read_mask(segmentation, size, where):
    """Returns `(breaches, segmentation, runs)`, the second without polygons that are none.

    The runs are None if there is no mask to go on with.
    """
    breaches = []
    if isinstance(segmentation, list):
        whole = [p for p in segmentation if not isinstance(p, list) or len(p) >= 6]
        num_short = len(segmentation) - len(whole)
        breaches += [("polygon_points", where)] * num_short
        if num_short and not whole:
            return breaches, segmentation, None
        segmentation = whole if num_short else segmentation
    try:
        runs = segmentation_runs(segmentation, size)
    except DataError as error:
        return [*breaches, ("segmentation", f"{where}: {error}")], segmentation, None
    if runs_area(runs) == 0:
        return [*breaches, ("empty_mask", where)], segmentation, None
    if isinstance(segmentation, list):
        left, top, right, bottom = _extent(segmentation)
        outside = max(-left, -top, right - size[1], bottom - size[0])
        if outside > _OUTSIDE_TOLERANCE:
            breaches.append(("partly_outside", f"{where}: by {outside:.1f} pixels"))
    return breaches, segmentation, runs


def _compare(annotation, category, runs, size, where):
    """As `compare_with_mask`, by the ways of tools to rasterise and to count."""
    area, box = runs_area(runs), runs_box(runs, size[0])
    area_tolerance = 0
    if isinstance(annotation["segmentation"], list):
        area_tolerance = max(0.1 * area, (box[2] + box[3]) / 2)  # half the pixels of the outline
        left, top, right, bottom = _extent(annotation["segmentation"])
        left, top = max(left, 0), max(top, 0)
        box = (left, top, min(right, size[1]) - left, min(bottom, size[0]) - top)
    if annotation.get("iscrowd") == 1:  # the areas of COCO's own crowds count something else
        area_tolerance = math.inf
    return compare_with_mask(annotation, category, area, box, where, area_tolerance, _BOX_TOLERANCE)


def _extent(polygons):
    """Left, top, right and bottom of polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
