"""Seconds and peak memory of a large image that is segmented tile by tile, and what is lost by it.

python benchmarks/tiles.py --images=FOLDER [--size=20000 --tile=1024 --overlap=128] [--model=MODEL]

The image repeats those of the folder. Without a model, the bright regions of a tile are its
instances: what is measured is reading, joining and writing. With one, a second line says how well
four images of `--whole` pixels agree with what the model makes of them as a whole; each is run at
its own scale.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import resource
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tifffile
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.tiles import predict_large_files, stitched_map
from tf_panoptic_fpn.large_images.grid import Grid
from tf_panoptic_fpn.large_images.reader import open_large_image
from tf_panoptic_fpn.masks.components import label_parts
from tf_panoptic_fpn.media.sources import find_inputs
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality

PIECE, BLOCK, SIDE = 512, 8, 6  # of the TIFF; pixels that are one; pictures beside each other


class BrightRegions(ImagePredictor):
    """Regions of blocks whose mean is above 127 are instances, the others are stuff."""

    def __init__(self):
        self.categories = CategoryTable((Category(1, "bright", True), Category(2, "dark", False)))
        self.seconds = 0.0

    def run(self, images):
        start = time.perf_counter()
        outputs = [self._outputs(image) for image in images]
        self.seconds += time.perf_counter() - start
        return outputs

    def _outputs(self, image):
        height, width = (-(-side // BLOCK) for side in image.shape[:2])
        grey = np.resize(image[::BLOCK, ::BLOCK].mean(axis=-1), (height, width))
        parts, is_bright = label_parts((grey > 127).astype(np.int32))
        numbers = np.cumsum(is_bright) * is_bright
        numbers[is_bright == 0] = is_bright.sum() + 1
        ids = numbers[parts].repeat(BLOCK, axis=0).repeat(BLOCK, axis=1).astype(np.int32)
        ids = ids[: image.shape[0], : image.shape[1]]
        count = int(ids.max())
        is_thing = np.arange(count) < is_bright.sum()
        return {
            schema.PANOPTIC_MAP: ids,
            schema.CATEGORY_IDS: np.where(is_thing, 1, 2),
            schema.IS_THING: is_thing,
            schema.SCORES: np.ones(count),
            schema.AREAS: np.bincount(ids.ravel(), minlength=count + 1)[1:],
            schema.BOXES: np.zeros((count, 4)),
            schema.NUM_SEGMENTS: np.int32(count),
        }


def mosaic(files, shift=0):
    """Pictures in rows and columns, each of the size of the first, uint8 `[H, W, 3]`."""
    height, width = read_image(files[0]).shape[:2]
    pictures = itertools.islice(itertools.cycle(files), shift, shift + SIDE * SIDE)
    pictures = [Image.fromarray(read_image(f)).resize((width, height)) for f in pictures]
    grid = np.stack([np.asarray(picture) for picture in pictures])
    grid = grid.reshape(SIDE, SIDE, height, width, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(SIDE * height, SIDE * width, 3)


def write_repeated(pattern, size, path):
    """Writes a TIFF of `size` by `size` pixels that repeats a pattern, tile by tile."""

    def pieces():
        for top, left in itertools.product(range(0, size, PIECE), repeat=2):
            rows, columns = (np.arange(k, min(k + PIECE, size)) for k in (top, left))
            yield pattern[np.ix_(rows % pattern.shape[0], columns % pattern.shape[1])]

    options = {"tile": (PIECE, PIECE), "photometric": "rgb", "compression": "jpeg"}
    tifffile.imwrite(path, pieces(), shape=(size, size, 3), dtype=np.uint8, **options)


def load(model, short_side):
    """The predictor of a model, at a scale of 1 for pictures of this shorter side."""
    from tf_panoptic_fpn.inference.load_predictor import load_predictor

    sides = f"data.validation.short_sides=[{short_side}]"
    longest = f"data.validation.max_long_side={16 * short_side}"
    return load_predictor(model, overrides=[sides, longest])


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def large(arguments, files, folder):
    """The line of one large image."""
    size, tile = arguments.size, arguments.tile
    predictor = load(arguments.model, tile) if arguments.model else BrightRegions()
    path = folder / "large.tif"
    write_repeated(mosaic(files), size, path)
    peak_before, processor = peak_mib(), time.process_time()
    start = time.perf_counter()
    predict_large_files(
        predictor,
        find_inputs([path], folder / "out"),
        folder / "out",
        tile,
        arguments.overlap,
        write=("tif", "json", "coco"),
    )
    seconds = time.perf_counter() - start
    document = json.loads((folder / "out/large.json").read_text(encoding="utf-8"))
    tiles = len(Grid(size, size, tile, arguments.overlap))
    line = {
        "benchmark": "tiles",
        "model": arguments.model or "bright regions",
        "size": size,
        "tile": tile,
        "tiles": tiles,
        "segments": len(document["segments_info"]),
        "seconds": round(seconds, 4),
        "seconds_per_tile": round(seconds / tiles, 4),
        "processor_seconds": round(time.process_time() - processor, 2),
        "peak_mib_before": peak_before,
        "peak_mib": peak_mib(),
    }
    if not arguments.model:
        line["predictor_seconds"] = round(predictor.seconds, 6)
    return line


def agreement(arguments, files, folder):
    """The line of the quality of stitched maps, against those of whole images."""
    side, tile = arguments.whole, arguments.tile
    whole, of_tiles = load(arguments.model, side), load(arguments.model, tile)
    quality = PanopticQuality(whole.categories)
    for number in range(4):
        image = mosaic(files, number * SIDE * SIDE)[:side, :side]
        Image.fromarray(image).save(folder / "whole.png")
        expected = whole(image)
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(open_large_image(folder / "whole.png"))
            stitched = stack.enter_context(
                stitched_map(of_tiles, opened, folder, tile, arguments.overlap)
            )
            segments = [{**segment, "iscrowd": 0} for segment in expected.segments]
            ids = stitched.read(0, *image.shape[:1], 0, image.shape[1])
            quality.update(expected.panoptic_map, segments, ids, stitched.segments)
    result = quality.result()
    return {
        "benchmark": "tiles",
        "model": arguments.model,
        "images": 4,
        "whole": [*image.shape[:2]],
        "tile": tile,
        "overlap": arguments.overlap,
        **{name: round(result[name]["PQ"], 4) for name in ("All", "Things", "Stuff")},
        "RQ": round(result["All"]["RQ"], 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", required=True, help="folder of images to repeat")
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument("--model")
    parser.add_argument("--whole", type=int, default=1536, help="pixels of the images compared")
    parser.add_argument("--folder", help="for the files, by default that for temporary ones")
    arguments = parser.parse_args()
    files = sorted(p for p in pathlib.Path(arguments.images).iterdir() if p.suffix != ".json")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(json.dumps(large(arguments, files, pathlib.Path(folder))), flush=True)
        if arguments.model:
            print(json.dumps(agreement(arguments, files, pathlib.Path(folder))))


if __name__ == "__main__":
    main()
