"""A split of a data set as records, whatever format it lies in, and the files of a record."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import FULL_RANGE, read_image, read_label_png, shown_size
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.masks.rle import Rle
from tf_panoptic_fpn.masks.segment_map import unique_ids
from tf_panoptic_fpn.messages import few


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
    rle: Rle | None  # None where none is asked for


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
    panoptic_path: str = ""
    height: int = 0
    width: int = 0
    segments: tuple[Segment, ...] = ()
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


class LazyRecords(Sequence[ImageRecord]):
    """Records of which a part is read from the files each time that one is asked for."""

    def __init__(
        self, records: Sequence[ImageRecord], complete: Callable[[ImageRecord], ImageRecord]
    ) -> None:
        self.records = records
        self._complete = complete

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: Any) -> Any:
        return self._complete(self.records[i])


def load_segments(record: ImageRecord) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image and its map.

    Returns:
        `(image, ids)`: uint8 `[H, W, 3]` RGB, and int32 `[H, W]` segment ids, 0 being void; all 0
        without a map.

    Raises:
        DataError: if a file cannot be decoded, its size is not the record's, or the ids in the map
            are not the record's.
    """
    path, size = record.panoptic_path, (record.height, record.width)
    image, is_grey = read_image(record.image_path, record.pixel_range), record.map_format == "grey"
    if not path:
        ids = np.zeros(size, np.int32)
    elif is_grey:
        ids = read_label_png(path) + 1
        ids[np.isin(ids, np.array(record.void_values, np.int32) + 1)] = 0
    else:
        ids = read_panoptic_png(path)
    _check_size(record.image_path, image, size)
    _check_size(path, ids, size)
    if not path:
        return image, ids
    found, listed = unique_ids(ids), [segment.id for segment in record.segments]
    unlisted = np.setdiff1d(found[found > 0], listed)
    if unlisted.size and is_grey:
        raise DataError(f"{path}: the map holds unknown labels: {few(unlisted - 1)}")
    if unlisted.size:
        raise DataError(f"{path}: the map holds ids that the JSON lacks: {few(unlisted)}")
    absent = np.setdiff1d(listed, found)
    if absent.size and not is_grey:  # whose segments may be classes, in the image or not
        raise DataError(f"{path}: the map lacks ids that the JSON lists: {few(absent)}")
    return image, ids


def check_files(what: str, paths: Sequence[str], file: str | os.PathLike) -> None:
    """Raises DataError, naming the first, if any of the files that another one lists is missing.

    Args:
        what: what the files are.
        paths: of the files.
        file: the one that lists them.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{missing[0]}: the {what} file is missing "
            f"({len(missing)} of the {len(paths)} that {file} lists)"
        )


def _check_size(path, array, size):
    received = array.shape[:2]
    if received != size:
        raise DataError(
            f"{path}: the size must be {size[0]}x{size[1]} (HxW), as annotated. "
            f"Received: {shown_size(path, received, size)}"
        )
