"""Segments images that are too large for memory, tile by tile."""

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError
from tf_panoptic_fpn.inference.files import CocoResults, read_ahead
from tf_panoptic_fpn.large_images.grid import Grid, Tile, checked_overlap
from tf_panoptic_fpn.large_images.reader import LargeImage, import_tifffile, open_large_image
from tf_panoptic_fpn.large_images.stitching import StitchedMap, Stitcher
from tf_panoptic_fpn.large_images.writer import things_of, write_id_tiff
from tf_panoptic_fpn.media.sources import Input
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.workdir import Workdir

if TYPE_CHECKING:
    from tf_panoptic_fpn.inference.image_predictor import ImagePredictor

TILED_OUTPUTS = ("tif", "json", "coco")
_COCO_PIXELS = 2**32  # pycocotools counts in 32 bits


def predict_large_files(
    predictor: "ImagePredictor",
    inputs: Sequence[Input],
    output: str | os.PathLike,
    tile: int = 1024,
    overlap: int | None = None,
    batch_size: int = 1,
    write: Sequence[str] = ("tif", "json"),
) -> None:
    """Segments images tile by tile, with memory that does not grow with their size.

    While one image is worked on, the output folder holds 4 bytes a pixel of it besides.

    Written for an image, by the names in `write`: "tif", `STEM_panoptic.tif` (ids, int32, in tiles,
    at the place on the earth of a GeoTIFF); "json", `STEM.json` (the segments). "coco": for all
    together `panoptic.json`, whose maps are the TIFFs, and `instances.json`, the things of the maps
    as COCO results.

    Args:
        predictor: an `ImagePredictor`.
        inputs: list of `sources.Input`.
        output: folder to write to.
        tile, overlap: int, pixels, see `Grid`.
        batch_size: int, tiles to run at once.
        write: names of `TILED_OUTPUTS`.

    Raises:
        ConfigError: if tifffile and zarr are not installed, there is a video among the inputs, or
            the tiles cannot be.
        PanopticError: when all is done, if files could not be read; one line that names them. At
            once, if an output cannot be written.
    """
    import_tifffile()
    checked_overlap(tile, overlap)
    for entry in inputs:
        if entry.is_video:
            raise ConfigError(f"{entry.path}: a video is not segmented in tiles")
    folder = Workdir(output)
    folder.create()
    failed: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(tqdm(total=0, unit="tile"))
            coco = None
            if "coco" in write:
                coco = stack.enter_context(CocoResults(folder.path, predictor.categories))
            for image_id, entry in enumerate(inputs, 1):
                try:
                    with (
                        _open(entry, predictor, coco) as image,
                        stitched_map(
                            predictor, image, folder.path, tile, overlap, batch_size, progress
                        ) as stitched,
                    ):
                        progress.set_postfix_str("writing")
                        _write(stitched, image, entry, image_id, folder, write, coco)
                        progress.set_postfix_str("")
                except DataError as error:
                    failed.append(str(error))
    except OSError as error:
        path = error.filename or output
        raise PanopticError(f"{path}: cannot be written: {error.strerror or error}") from None
    if failed:
        raise PanopticError("; ".join(failed))


def _open(entry: Input, predictor: "ImagePredictor", coco: CocoResults | None) -> LargeImage:
    image = open_large_image(entry.path, predictor.pixel_range)
    if coco and image.shape[0] * image.shape[1] >= _COCO_PIXELS:
        raise DataError(
            f"{entry.path}: COCO's results hold images of less than {_COCO_PIXELS} pixels. "
            f"Received: {image.shape[0]}x{image.shape[1]}"
        )
    return image


def _write(
    stitched: StitchedMap,
    image: LargeImage,
    entry: Input,
    image_id: int,
    folder: Workdir,
    write: Sequence[str],
    coco: CocoResults | None,
) -> None:
    height, width = stitched.shape
    size = {"file_name": entry.file_name, "height": height, "width": width}
    path = folder.path / f"{entry.stem}_panoptic.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    if {"tif", "coco"}.intersection(write):
        write_id_tiff(stitched, path, image.geo_tags)
    if "json" in write:
        document = {**size, "segments_info": stitched.segments}
        write_text(folder.path / f"{entry.stem}.json", json.dumps(document, indent=1))
    if coco:
        name = path.relative_to(folder.path).as_posix()
        annotation = {
            "image_id": image_id,
            "file_name": name,
            "segments_info": stitched.segments,
        }
        coco.add(
            {
                "image": {"id": image_id, **size},
                "annotation": annotation,
                "instances": things_of(stitched, image_id),
            }
        )


@contextlib.contextmanager
def stitched_map(
    predictor: "ImagePredictor",
    image: LargeImage,
    folder: str | os.PathLike,
    tile: int,
    overlap: int | None = None,
    batch_size: int = 1,
    progress: tqdm | None = None,
) -> Iterator[StitchedMap]:
    """Segments the tiles of an image and joins them.

    Args:
        predictor: an `ImagePredictor`.
        image: `LargeImage`.
        folder: path, on a disk with 4 free bytes a pixel, which are in use until the context ends.
        tile, overlap: int, see `Grid`.
        batch_size: int, tiles to run at once.
        progress: counts the tiles, or None.

    Yields:
        A `StitchedMap`.
    """
    stuff_ids = predictor.categories.stuff_ids
    grid = Grid(*image.shape, tile, overlap)
    if progress is not None:
        progress.total += len(grid)
        progress.refresh()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tiles_") as scratch:
        stitcher = Stitcher(grid, len(stuff_ids), scratch)
        with contextlib.closing(stitcher):
            with ThreadPoolExecutor(1) as reader:
                tiles = read_ahead(_read_tiles(grid, image), reader, batch_size)
                while batch := [*itertools.islice(tiles, batch_size)]:
                    results = predictor.predict_batch(np.stack([pixels for _, pixels in batch]))
                    for (part, _), result in zip(batch, results, strict=True):
                        stitcher.add(part, *tile_labels(result))
                        if progress is not None:
                            progress.update()
            yield stitcher.finish(stuff_ids, predictor.merge.stuff_area)


def _read_tiles(grid: Grid, image: LargeImage) -> Iterator[tuple[Tile, np.ndarray]]:
    for tile in grid:
        yield tile, image.read(tile.top, tile.bottom, tile.left, tile.right)


def tile_labels(result: Result) -> tuple[np.ndarray, list[int], list[float]]:
    """What a `Stitcher` is given of a tile.

    Stuff is painted wherever no thing is, however small: what is small is decided on the whole
    image.

    Args:
        result: `Result` of the tile.

    Returns:
        `(labels, category_ids, scores)`, see `Stitcher.add`.
    """
    categories = result.categories
    stuff = {category_id: number for number, category_id in enumerate(categories.stuff_ids, 1)}
    numbers = np.zeros(len(result.segments) + 1, np.int32)  # by segment id
    category_ids, scores = [], []
    for segment in result.segments:
        if segment["category_id"] in stuff:
            numbers[segment["id"]] = -stuff[segment["category_id"]]
        else:
            category_ids.append(segment["category_id"])
            scores.append(segment["score"])
            numbers[segment["id"]] = len(category_ids)
    labels = numbers[result.panoptic_map]
    if result.semantic_map is not None:
        unpainted = np.maximum(result.semantic_map - (categories.num_semantic_things - 1), 0)
        labels = np.where(result.panoptic_map == 0, -unpainted, labels).astype(np.int32)
    return labels, category_ids, scores
