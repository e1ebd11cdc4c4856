"""Writing a panoptic map that is too large for memory."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.large_images.reader import import_tifffile
from tf_panoptic_fpn.large_images.stitching import StitchedMap

PIECE = 512  # pixels, the sides of the tiles of a TIFF
_STRIP_PIXELS = 1 << 24  # of an instance that are looked at together


def write_id_tiff(
    stitched: StitchedMap, path: str | os.PathLike, geo_tags: Sequence[tuple] = ()
) -> None:
    """Writes a tiled TIFF of segment ids, int32, compressed without loss, tile by tile.

    Args:
        stitched: `StitchedMap`.
        path: the file to write.
        geo_tags: `LargeImage.geo_tags`, which put it in the place of the image.
    """
    tifffile = import_tifffile()
    height, width = stitched.shape

    def pieces() -> Iterator[np.ndarray]:
        for top in range(0, height, PIECE):
            for left in range(0, width, PIECE):
                bottom, right = min(top + PIECE, height), min(left + PIECE, width)
                yield stitched.read(top, bottom, left, right)

    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            pieces(),
            shape=stitched.shape,
            dtype=np.int32,
            tile=(PIECE, PIECE),
            compression="zlib",
            compressionargs={"level": 1},
            photometric="minisblack",
            bigtiff=4 * height * width > 2**32 - 2**25,
            metadata=None,
            extratags=[*geo_tags],
        )


def things_of(stitched: StitchedMap, image_id: int | str) -> Iterator[dict]:
    """Yields the things of a map as COCO instance results, with the pixels that the map has.

    Args:
        stitched: `StitchedMap`, of less than 2**32 pixels.
        image_id: int or str.

    Yields:
        dicts: `image_id`, `category_id`, `bbox`, `score` and `segmentation`, an RLE.
    """
    for segment in stitched.segments:
        if "score" in segment:
            named = {key: segment[key] for key in ("category_id", "bbox", "score")}
            yield {
                "image_id": image_id,
                **named,
                "segmentation": _encode(stitched, segment["id"], segment["bbox"]),
            }


def _encode(stitched: StitchedMap, segment_id: int, box: Sequence[int]) -> dict:
    """COCO's RLE of a segment, of which a few columns are read at a time."""
    left, top, width, height = box
    total = stitched.shape[0] * stitched.shape[1]
    bounds = [np.zeros(0, np.int64)]  # where runs start and end, down the columns of the image
    step = max(_STRIP_PIXELS // height, 1)
    for start in range(left, left + width, step):
        end = min(start + step, left + width)
        ids = stitched.read(top, top + height, start, end).T
        framed = np.zeros((len(ids), height + 2), bool)
        framed[:, 1:-1] = ids == segment_id
        column, row = np.nonzero(framed[:, 1:] != framed[:, :-1])
        bounds.append((start + column) * stitched.shape[0] + top + row)
    # A run that goes on in the next column ends where that one starts.
    places, count = np.unique(np.concatenate(bounds), return_counts=True)
    places = np.append(places[count == 1], total)
    counts = np.diff(np.unique(places), prepend=0).tolist()
    rle = coco_mask.frPyObjects({"size": [*stitched.shape], "counts": counts}, *stitched.shape)
    return {"size": [*stitched.shape], "counts": rle["counts"].decode()}
