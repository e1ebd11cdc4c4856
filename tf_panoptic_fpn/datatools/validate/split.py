"""Checks of a split of any other format, through the reader that training uses."""

from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.datatools.validate.document import check_unused
from tf_panoptic_fpn.datatools.validate.files import check_image
from tf_panoptic_fpn.datatools.validate.panoptic import check_segments
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.records import load_segments
from tf_panoptic_fpn.formats.segment_map import unique_ids


def validate_split(load_split):
    """Checks the images of a split and what its reader makes of them.

    Args:
        load_split: function that returns a `PanopticSplit`, or raises DataError.

    Returns:
        A `Validation` without a corrected JSON.
    """
    validation = Validation()
    findings = validation.findings
    try:
        split = load_split()
    except DataError as error:
        findings.add("other", str(error))
        return validation
    categories = {
        category.id: {"name": category.name, "isthing": category.is_thing}
        for category in split.categories.categories
    }

    def check(i):
        """Name, breaches, digest, category ids, and the numbers of void and of all pixels."""
        try:
            record = split.images[i]
        except DataError as error:
            return f"image {i}", [("other", str(error))], None, (), (0, 0)
        return record.file_name, *_check(record, categories, split.has_panoptic)

    used = set()
    for name, breaches, digest, category_ids, pixels in map_in_threads(
        check, range(len(split.images)), "validate"
    ):
        findings.extend((rule, f"{name}: {text}") for rule, text in breaches)
        validation.add_image(name, digest, *pixels)
        used.update(category_ids)
    check_unused(categories, used, findings)
    return validation


def _check(record, categories, has_panoptic):
    breaches, size, digest = check_image(record.image_path, (record.height, record.width))
    used = {instance.category_id for instance in record.instances or ()}
    if has_panoptic:
        used |= {segment.category_id for segment in record.segments}
    if size is None:
        return breaches, digest, used, (0, 0)
    try:
        _, ids = load_segments(record)
    except DataError as error:
        if not any(rule == "size" for rule, _ in breaches):
            breaches.append(("other", str(error)))
        return breaches, digest, used, (0, 0)
    pixels = (int((ids == 0).sum()), ids.size)
    if not has_panoptic:  # the segments are classes, in the image or not
        found = set(unique_ids(ids).tolist())
        used |= {segment.category_id for segment in record.segments if segment.id in found}
        return breaches, digest, used, pixels
    segments = [
        {"id": s.id, "category_id": s.category_id, "iscrowd": int(s.is_crowd)}
        | ({} if s.area is None else {"area": s.area})
        | ({} if s.bbox_xywh is None else {"bbox": list(s.bbox_xywh)})
        for s in record.segments
    ]
    compared = []
    shift = 1 if record.map_format == "grey" else 0
    check_segments(ids, segments, categories, compared, [], shift)
    # Formats without areas and boxes are not to be blamed for it.
    breaches += [breach for breach in compared if breach[0] not in ("no_area", "no_box")]
    return breaches, digest, used, pixels
