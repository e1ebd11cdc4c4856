"""Reading data sets in the COCO panoptic format."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import LIST, Breaches
from tf_panoptic_fpn.formats.coco_instances import with_coco_instances
from tf_panoptic_fpn.formats.coco_json import Fields, ImageFile, category_table, images_by_id
from tf_panoptic_fpn.formats.json_file import Entry, list_entries, read_lists
from tf_panoptic_fpn.formats.records import ImageRecord, PanopticSplit, Segment, check_files
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.messages import few, written
from tf_panoptic_fpn.section import Path, setting


@dataclasses.dataclass(frozen=True, slots=True)
class PanopticAnnotation:
    """The annotation of one image, and the dicts of the JSON that it is made of."""

    image_id: int | str
    file_name: str  # of the map
    segments: tuple[Segment, ...]
    entry: Entry
    segment_entries: list[Entry]  # of the segments, in their order


class CocoPanopticSplit(SplitConfig):
    """COCO panoptic: a JSON of segments and a folder of PNGs whose colours are their ids."""

    alternatives = (
        frozenset({"images", "panoptic_json", "panoptic_dir"}),
        frozenset({"images", "panoptic_json", "panoptic_dir", "instances_json"}),
    )

    format: Literal["coco_panoptic"] = "coco_panoptic"
    images: Path = setting("", "folder of the images")
    panoptic_json: Path = setting("", "COCO panoptic JSON")
    panoptic_dir: Path = setting("", "folder of its PNGs")
    instances_json: Path = setting(
        "", "COCO instances JSON, for the instances in place of the PNGs"
    )

    def read(self, root: str | os.PathLike, breaches: Breaches | None = None) -> PanopticSplit:
        """Reads the split, see `read_coco_panoptic` and `with_coco_instances`."""
        images, panoptic_json, panoptic_dir, *instances_json = self.paths(root).values()
        split = read_coco_panoptic(images, panoptic_json, panoptic_dir, breaches)
        for path in instances_json:  # one or none
            split = with_coco_instances(split, path, breaches)
        return split


def read_coco_panoptic(
    images_dir: str | os.PathLike,
    panoptic_json: str | os.PathLike,
    panoptic_dir: str | os.PathLike,
    breaches: Breaches | None = None,
    rename: Callable[[int | str, str], str] | None = None,
) -> PanopticSplit:
    """Reads the JSON of a COCO panoptic split and checks that it and its folders hold together.

    No image is opened here: `load_segments` compares what the files hold with the JSON.

    Args:
        images_dir: folder of the images.
        panoptic_json: file with `images`, `annotations` (each with `segments_info`), `categories`.
        panoptic_dir: folder of the panoptic PNGs.
        breaches: by default those that stop.
        rename: function of an image's id and its file name in the JSON; returns the file's name in
            `images_dir`. By default that of the JSON.

    Returns:
        A `PanopticSplit` of one or more images.

    Raises:
        DataError: if a file is missing or no image is left; by the policy of `breaches` if the JSON
            cannot be read, lacks a key or contradicts itself.
    """
    breaches = breaches or Breaches()
    lists = read_lists(panoptic_json, ("images", "categories"), breaches)
    lists = lists or {"images": [], "categories": []}
    categories = category_table(lists["categories"], panoptic_json, breaches, is_panoptic=True)
    images = images_by_id(lists["images"], panoptic_json, breaches)
    if rename is not None:
        images = {i: (rename(i, name), h, w) for i, (name, h, w) in images.items()}
    annotations = {
        annotation.image_id: (annotation.file_name, annotation.segments)
        for annotation in panoptic_annotations(panoptic_json, categories, breaches, images)
    }
    bare = [image_id for image_id in images if image_id not in annotations]
    if bare:
        text = f"images without annotation: {few(map(written, bare))}"
        breaches.add("no_annotation", "", text, panoptic_json)
    records = [
        ImageRecord(
            image_id=image_id,
            file_name=file_name,
            image_path=os.path.join(images_dir, file_name),
            panoptic_path=os.path.join(panoptic_dir, annotations[image_id][0]),
            height=height,
            width=width,
            segments=annotations[image_id][1],
        )
        for image_id, (file_name, height, width) in images.items()
        if image_id in annotations and annotations[image_id][1]
    ]
    if not records:
        raise DataError(f"no image can be used: {breaches.first_reason()}")
    check_files("image", [record.image_path for record in records], panoptic_json)
    check_files("panoptic map", [record.panoptic_path for record in records], panoptic_json)
    return PanopticSplit(categories, tuple(records))


def panoptic_annotations(
    file: str | os.PathLike,
    categories: CategoryTable,
    breaches: Breaches,
    images: Mapping[int | str, ImageFile] | None = None,
) -> Iterator[PanopticAnnotation]:
    """Reads the `annotations` of a COCO panoptic JSON.

    Args:
        file: the JSON.
        categories, breaches: see `read_coco_panoptic`.
        images: those that can have an annotation, by their ids; by default any.

    Yields:
        One an image; without a segment, that is a breach.

    Raises:
        DataError: by the policy of `breaches`.
    """
    fields, by_id = Fields(file, breaches), categories.by_id
    seen, names = set(), set()
    for annotation, _ in list_entries(file, "annotations", breaches):
        fields.place = ""
        if images is None:
            image_id = fields.image_id(annotation, "image_id")
        else:
            image_id = fields.known_image(annotation, images)
        if image_id is None:
            continue
        place = f"image id {written(image_id)}" if images is None else images[image_id][0]
        fields.place = place
        png_name = fields.file_name(annotation)
        entries = fields.list_of_objects(annotation, "segments_info")
        if png_name is None or entries is None:
            continue
        if image_id in seen:
            text = f"image id {written(image_id)} has more than one annotation"
            fields.place = ""
            fields.add("annotation_twice", text)
            continue
        if images is not None and png_name in names:
            fields.add("file_twice", f"the map {png_name} is listed again")
            if breaches.policy == LIST:
                continue
        seen.add(image_id)
        names.add(png_name)
        segments, kept = _segments(entries, by_id, fields, place)
        if not entries and images is not None:
            fields.add("no_segments", "the annotation has no segments")
        yield PanopticAnnotation(image_id, png_name, segments, annotation, kept)


def _segments(entries, categories, fields, place):
    """The `Segment`s of an annotation, and the entries that they are made of.

    Where one is bad there are none, since the map holds it; but all others for those who list.
    """
    segments, kept, seen, is_whole = [], [], set(), True
    for entry in entries:
        fields.place = place
        segment_id = fields.int_id(entry, "id")
        category_id = fields.known_category(entry, categories)
        if segment_id is None or category_id is None:
            continue
        if not 0 < segment_id < 1 << 24:
            text = f"a segment id must be in 1..2**24-1. Received: {segment_id}"
            fields.add("segment_id", text)
        elif segment_id in seen:
            fields.add("segment_twice", f"the segment id {segment_id} occurs twice")
        else:
            seen.add(segment_id)
            kept.append(entry)
            fields.place = f"{place}: segment {segment_id}"
            is_crowd, (box, is_good_box) = fields.is_crowd(entry), fields.box(entry)
            is_whole &= is_crowd is not None and is_good_box
            segments.append(
                Segment(segment_id, category_id, bool(is_crowd), fields.area(entry), box)
            )
    fields.place = place
    if not is_whole and fields.breaches.policy != LIST:
        return (), []
    return tuple(segments), kept
