"""Cityscapes as published to COCO's panoptic format, as cityscapesScripts does."""

import concurrent.futures
import json
import os

import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.cityscapes import annotated, read_cityscapes
from tf_panoptic_fpn.formats.images import read_label_png
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.masks.segment_map import tight_boxes


def convert_cityscapes(images_dir, label_dir, panoptic_json, panoptic_dir):
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
    try:
        os.makedirs(panoptic_dir, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            work = pool.map(lambda record: _convert(record, panoptic_dir), split.images.records)
            pairs = list(tqdm(work, "convert", len(split.images), unit="image"))
        tree = {
            "images": [image for image, _ in pairs],
            "annotations": [annotation for _, annotation in pairs],
            "categories": split.categories.to_coco(),
        }
        write_text(panoptic_json, json.dumps(tree))
    except OSError as error:
        path = error.filename or panoptic_dir
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _convert(record, panoptic_dir):
    """Writes the PNG of one image; returns its entries in `images` and `annotations`."""
    values = read_label_png(record.panoptic_path)
    record = annotated(record, values)
    ids = np.where(np.isin(values, record.void_values), 0, values)
    segments = []
    boxes, areas = tight_boxes(ids, [segment.id - 1 for segment in record.segments])
    for segment, (y1, x1, y2, x2), area in zip(record.segments, boxes, areas, strict=True):
        segments.append(
            {
                "id": segment.id - 1,
                "category_id": segment.category_id,
                "area": int(area),
                "bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
                "iscrowd": int(segment.is_crowd),
            }
        )
    png_name = f"{record.image_id}_gtFine_panoptic.png"
    write_panoptic_png(ids, os.path.join(panoptic_dir, png_name))
    image = {
        "id": record.image_id,
        "width": record.width,
        "height": record.height,
        "file_name": record.file_name,
    }
    annotation = {"image_id": record.image_id, "file_name": png_name, "segments_info": segments}
    return image, annotation
