"""Cityscapes as published to COCO's panoptic format, as cityscapesScripts does."""

import json
import os

import numpy as np

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.convert.source import Drawing
from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes import annotated, read_cityscapes
from tf_panoptic_fpn.formats.images import read_label_png
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.formats.records import LazyRecords


def convert_cityscapes(
    images_dir: str | os.PathLike,
    label_dir: str | os.PathLike,
    panoptic_json: str | os.PathLike,
    panoptic_dir: str | os.PathLike,
) -> None:
    """Writes a split of Cityscapes in COCO's panoptic format, as cityscapesScripts does.

    Segments keep the ids of the published maps and categories are label ids. Unlike there, the
    file names of images in the JSON are those of the files, `CITY/*_leftImg8bit.png`.

    Args:
        images_dir, label_dir: see `read_cityscapes`.
        panoptic_json: the JSON to write; it must not exist.
        panoptic_dir: the folder of PNGs to write.

    Raises:
        DataError: as `read_cityscapes`, or if the JSON exists or cannot be written.

    Reference: `preparation/createPanopticImgs.py` of cityscapesScripts.
    """
    if os.path.exists(panoptic_json):
        raise DataError(f"{panoptic_json}: exists already")
    split = read_cityscapes(images_dir, label_dir)
    assert isinstance(split.images, LazyRecords)  # of which no map is to be read twice
    try:
        os.makedirs(panoptic_dir, exist_ok=True)
        work = map_in_threads(
            lambda record: _convert(record, panoptic_dir), split.images.records, "convert"
        )
        images, annotations = zip(*work, strict=True)
        categories = split.categories.to_coco()
        tree = {"images": images, "annotations": annotations, "categories": categories}
        write_text(panoptic_json, json.dumps(tree))
    except OSError as error:
        path = error.filename or panoptic_dir
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _convert(record, panoptic_dir):
    """Writes the PNG of one image; returns its entries in `images` and `annotations`."""
    values = read_label_png(record.panoptic_path)
    record = annotated(record, values)
    ids = np.where(np.isin(values, record.void_values), 0, values)
    segments = {s.id - 1: (s.category_id, s.is_crowd) for s in record.segments}
    png_name = f"{record.image_id}_gtFine_panoptic.png"
    write_panoptic_png(ids, os.path.join(panoptic_dir, png_name))
    image = {
        "id": record.image_id,
        "width": record.width,
        "height": record.height,
        "file_name": record.file_name,
    }
    return image, {
        "image_id": record.image_id,
        "file_name": png_name,
        "segments_info": Drawing(ids, segments).segments_info(),
    }
