"""Checks of a split of any other format, through the reader that training uses."""

from tf_panoptic_fpn.data.threads import map_in_threads
from tf_panoptic_fpn.data.validate.document import check_unused
from tf_panoptic_fpn.data.validate.files import check_image
from tf_panoptic_fpn.data.validate.panoptic import check_segments
from tf_panoptic_fpn.data.validate.validation import Validation
from tf_panoptic_fpn.errors import DataError


def validate_split(split, load_segments):
    """Checks the images of a split and what its reader makes of them.

    Args:
        split: a `PanopticSplit`.
        load_segments: function of an `ImageRecord` that returns `(image, ids)`.

    Returns:
        A `Validation` without a corrected JSON.
    """
    validation = Validation()
    findings = validation.findings
    categories = {
        category.id: {"name": category.name, "isthing": category.is_thing}
        for category in split.categories.categories
    }

    def check(record):
        breaches, size, digest = check_image(record.image_path, (record.height, record.width))
        if size is None:
            return breaches, digest, None
        try:
            _, ids = load_segments(record)
        except DataError as error:
            if not any(rule == "size" for rule, _ in breaches):
                breaches.append(("other", str(error)))
            return breaches, digest, None
        segments = [
            {"id": s.id, "category_id": s.category_id, "iscrowd": int(s.is_crowd)}
            | ({} if s.area is None else {"area": s.area})
            | ({} if s.bbox_xywh is None else {"bbox": list(s.bbox_xywh)})
            for s in record.segments
        ]
        found = []
        check_segments(ids, segments, categories, found, [])
        # Formats without areas are not to be blamed for it.
        breaches += [breach for breach in found if breach[0] != "no_area"]
        return breaches, digest, ids

    used = set()
    for record, (breaches, digest, ids) in zip(
        split.images, map_in_threads(check, split.images, "validate"), strict=True
    ):
        findings.extend((rule, f"{record.file_name}: {text}") for rule, text in breaches)
        counts = (0, 0) if ids is None else (int((ids == 0).sum()), ids.size)
        validation.add_image(record.file_name, digest, *counts)
        used |= {segment.category_id for segment in record.segments}
        used |= {i.category_id for i in getattr(record, "instances", None) or ()}
    check_unused(categories, used, findings)
    return validation
