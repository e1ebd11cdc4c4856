"""Checks of a split of any other format, through the reader that training uses."""

import collections
from collections.abc import Callable

from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.datatools.validate.classes import check_classes
from tf_panoptic_fpn.datatools.validate.files import check_image
from tf_panoptic_fpn.datatools.validate.findings import Changes
from tf_panoptic_fpn.datatools.validate.panoptic import compare_segments
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.records import PanopticSplit, load_segments
from tf_panoptic_fpn.masks.segment_map import unique_ids


def validate_split(load_split: Callable[[], PanopticSplit]) -> Validation:
    """Checks the images of a split and what its reader makes of them.

    Args:
        load_split: returns the split, or raises DataError.

    Returns:
        A `Validation` without a corrected JSON.
    """
    validation = Validation()
    findings = validation.findings
    try:
        split = load_split()
    except DataError as error:
        findings.note("other", str(error))
        return validation

    def check(i):
        """Name, breaches, digest, pairs of category and crowd, numbers of void and of pixels."""
        try:
            record = split.images[i]
        except DataError as error:
            return f"image {i}", [("other", str(error))], None, (), (0, 0)
        return record.file_name, *_check(record, split)

    crowds = collections.defaultdict(list)
    for name, breaches, digest, found, pixels in map_in_threads(
        check, range(len(split.images)), "validate"
    ):
        findings.extend((rule, f"{name}: {text}") for rule, text in breaches)
        validation.add_image(name, digest, *pixels)
        for category_id, is_crowd in found:
            crowds[category_id].append(is_crowd)
    check_classes(split.categories, crowds, findings)
    return validation


def _check(record, split):
    breaches, size, digest = check_image(record.image_path, (record.height, record.width))
    used = [(i.category_id, i.is_crowd) for i in record.instances or ()]
    if split.has_panoptic:
        used += [(s.category_id, s.is_crowd) for s in record.segments]
    if size is None:
        return breaches, digest, used, (0, 0)
    try:
        _, ids = load_segments(record)
    except DataError as error:
        if not any(rule == "size" for rule, _ in breaches):
            breaches.append(("other", str(error)))
        return breaches, digest, used, (0, 0)
    pixels = (int((ids == 0).sum()), ids.size)
    if not split.has_panoptic:  # the segments are classes, in the image or not
        found = set(unique_ids(ids).tolist())
        used += [(s.category_id, False) for s in record.segments if s.id in found]
        return breaches, digest, used, pixels
    # What is left out is not to be blamed: formats without areas and boxes have none.
    entries = [
        {"area": s.area or 0, "bbox": s.bbox_xywh or (), "iscrowd": 0} for s in record.segments
    ]
    first_id = 1 if record.map_format == "grey" else 0
    _, compared = compare_segments(
        ids, record.segments, entries, split.categories, Changes(), record.file_name, first_id
    )
    return breaches + compared, digest, used, pixels
