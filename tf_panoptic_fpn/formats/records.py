"""A split of a data set as records, whatever format it lies in, and the files of a record."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import FULL_RANGE, read_image, read_label_png, shown_size
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.masks.segment_map import unique_ids


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One segment, as the JSON lists it; `area` and `bbox_xywh` may be left out there."""

    id: int
    category_id: int
    is_crowd: bool = False
    area: float | None = None
    bbox_xywh: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """One instance with a mask of its own, which may overlap others."""

    id: int
    category_id: int
    is_crowd: bool
    area: float | None
    bbox_xywh: tuple[float, float, float, float] | None
    rle: dict | None  # COCO's: {"size": [H, W], "counts": bytes}; None where none is asked for


@dataclasses.dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: its files, its size in pixels, its segments and its instances.

    The map at `panoptic_path` ("" where there is none) holds ids by `map_format`: "rgb", COCO's
    colours, id = R + 256 G + 65536 B; or "grey", id = value + 1, 0 for the values in `void_values`.
    `pixel_range` is that of `read_image`.
    """

    image_id: int | str
    file_name: str
    image_path: str
    panoptic_path: str
    height: int
    width: int
    segments: tuple[Segment, ...]
    instances: tuple[Instance, ...] | None = None  # None: they are the things of the map
    map_format: str = "rgb"
    void_values: tuple[int, ...] = ()
    pixel_range: tuple[int, int] = FULL_RANGE


@dataclasses.dataclass(frozen=True)
class PanopticSplit:
    """One split of a data set, in the order of its JSON.

    Where `has_panoptic` is False, the segments are whole classes, or there are none.
    """

    categories: CategoryTable
    images: Sequence[ImageRecord]
    has_panoptic: bool = True


class LazyRecords(Sequence):
    """Records of which a part is read from the files each time that one is asked for."""

    def __init__(self, records, complete):
        """Takes a sequence of `ImageRecord` and a function that returns one of them completed."""
        self.records = records
        self._complete = complete

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self._complete(self.records[i])


def load_segments(record):
    """Reads an image and its map.

    Args:
        record: an `ImageRecord`.

    Returns:
        `(image, ids)`: uint8 `[H, W, 3]` RGB, and int32 `[H, W]` segment ids, 0 being void; all 0
        without a map.

    Raises:
        DataError: if a file cannot be decoded, its size is not the record's, or the ids in the map
            are not the record's.
    """
    size = (record.height, record.width)
    segment_ids = [segment.id for segment in record.segments]
    if record.panoptic_path and record.map_format == "rgb":
        paths = record.image_path, record.panoptic_path
        return read_checked(*paths, size, segment_ids, record.pixel_range)
    image = read_image(record.image_path, record.pixel_range)
    _check_size(record.image_path, image, size)
    if not record.panoptic_path:
        return image, np.zeros(size, np.int32)
    ids = read_label_png(record.panoptic_path) + 1
    _check_size(record.panoptic_path, ids, size)
    ids[np.isin(ids, np.array(record.void_values, np.int32) + 1)] = 0
    unlisted = np.setdiff1d(unique_ids(ids), [0, *segment_ids]) - 1
    if unlisted.size:
        raise DataError(f"{record.panoptic_path}: the map holds unknown labels: {few(unlisted)}")
    return image, ids


def read_checked(image_path, panoptic_path, size, segment_ids, pixel_range=FULL_RANGE):
    """Reads an image and its panoptic map, which must have this size and these ids.

    Args:
        image_path, panoptic_path: the two files, the map in COCO's colours.
        size: `(height, width)`, as annotated.
        segment_ids: ints, the ids that the JSON lists.
        pixel_range: see `read_image`.

    Returns:
        As `load_segments`.

    Raises:
        DataError: as `load_segments`.
    """
    image = read_image(image_path, pixel_range)
    ids = read_panoptic_png(panoptic_path)
    _check_size(image_path, image, size)
    _check_size(panoptic_path, ids, size)
    found = unique_ids(ids)
    unlisted = np.setdiff1d(found[found > 0], segment_ids)
    if unlisted.size:
        raise DataError(f"{panoptic_path}: the map holds ids that the JSON lacks: {few(unlisted)}")
    absent = np.setdiff1d(segment_ids, found)
    if absent.size:
        raise DataError(f"{panoptic_path}: the map lacks ids that the JSON lists: {few(absent)}")
    return image, ids


def check_files(what, paths, file):
    """Raises DataError, naming the first, if any of the files that another one lists is missing.

    Args:
        what: str, what the files are.
        paths: list of paths.
        file: the file that lists them.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{missing[0]}: the {what} file is missing "
            f"({len(missing)} of the {len(paths)} that {file} lists)"
        )


def few(ids):
    """Returns the first of some ids as text, so that a message stays on one line."""
    ids = list(ids)
    text = ", ".join(str(i) for i in ids[:5])
    return text if len(ids) <= 5 else f"{text} and {len(ids) - 5} more"


def _check_size(path, array, size):
    received = array.shape[:2]
    if received != tuple(size):
        raise DataError(
            f"{path}: the size must be {size[0]}x{size[1]} (HxW), as annotated. "
            f"Received: {shown_size(path, received, size)}"
        )
