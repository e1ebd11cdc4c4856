"""How Beam's `RunInference` runs a model: a shard of paths in, its rows out."""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from tf_panoptic_fpn.batch.shards import read_bytes
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.load_predictor import load_predictor
from tf_panoptic_fpn.messages import one_line
from tf_panoptic_fpn.results.result import Result

READERS = 4  # threads: what lies in a bucket takes long to answer
WAITING_BATCHES = 4  # of images that wait for others of their size


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of the inputs: what is done at once, or once more after a crash."""

    number: int
    paths: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What came out: rows as in `shards.SCHEMA`, and dicts `path` and `reason`."""

    number: int
    rows: list[dict[str, Any]]
    dead: list[dict[str, str]]
    categories: CategoryTable


class ShardHandler(ModelHandler[Shard, ShardResult, ImagePredictor]):
    """Predicts shard by shard, and batches the images of one size in it.

    Beam's own batches hold one shard: images differ in size, which Beam does not know, and a shard
    is what is written as a whole.

    Args:
        model: str, as `load_predictor` takes it, to be found by each worker.
        root: str, the folder that `file_name` starts at.
        batch_size: int, images of one size to run at once.
    """

    def __init__(self, model: str, root: str, batch_size: int) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._model = model
        self._root = root
        self._batch_size = batch_size

    def load_model(self) -> ImagePredictor:
        return load_predictor(self._model)

    def run_inference(
        self,
        batch: Sequence[Shard],
        model: ImagePredictor,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[ShardResult]:
        for shard in batch:
            yield self.predict(shard, model)

    def predict(self, shard: Shard, predictor: ImagePredictor) -> ShardResult:
        """Predicts the images of a shard; its rows are in order of the paths."""
        rows: list[dict[str, Any]] = []
        dead: list[dict[str, str]] = []

        def predict(paths: Sequence[str], images: Sequence[np.ndarray]) -> None:
            try:
                results = predictor.predict_batch(np.stack(images))
            except PanopticError as error:
                if len(images) == 1:
                    dead.append({"path": paths[0], "reason": one_line(error)})
                    return
                for path, image in zip(paths, images, strict=True):
                    predict([path], [image])
                return
            rows.extend(map(self._row, paths, results))

        for batch in self._batches(shard.paths, predictor.pixel_range, dead):
            predict(*zip(*batch, strict=True))
        rows.sort(key=lambda row: row["path"])
        dead.sort(key=lambda entry: entry["path"])
        return ShardResult(shard.number, rows, dead, predictor.categories)

    def _batches(
        self, paths: Iterable[str], pixel_range: tuple[int, int], dead: list[dict[str, str]]
    ) -> Iterator[list[tuple[str, np.ndarray]]]:
        """Yields lists of up to `batch_size` paths with images of one size."""
        waiting: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
        limit = WAITING_BATCHES * self._batch_size
        for path, image in _read_images(paths, pixel_range, limit):
            if isinstance(image, str):
                dead.append({"path": path, "reason": image})
                continue
            same = waiting.setdefault(image.shape, [])
            same.append((path, image))
            if len(same) == self._batch_size:
                yield waiting.pop(image.shape)
            elif sum(map(len, waiting.values())) >= limit:
                yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
        yield from waiting.values()

    def _row(self, path: str, result: Result) -> dict[str, Any]:
        png = io.BytesIO()
        write_panoptic_png(result.panoptic_map, png)
        height, width = result.panoptic_map.shape
        instances = result.instances
        return {
            "path": path,
            "file_name": path.removeprefix(self._root),
            "height": height,
            "width": width,
            "segments_info": result.segments,
            "instances": None
            if instances is None
            else [{**i, "rle": i["segmentation"]["counts"]} for i in instances],
            "panoptic_png": png.getvalue(),
        }


def _read_images(
    paths: Iterable[str], pixel_range: tuple[int, int], ahead: int
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Yields each path with its image, or with the reason why there is none, in order."""
    paths = iter(paths)
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        pending = collections.deque(
            pool.submit(_read, path, pixel_range) for path in itertools.islice(paths, ahead)
        )
        while pending:
            yield pending.popleft().result()
            for path in itertools.islice(paths, 1):
                pending.append(pool.submit(_read, path, pixel_range))


def _read(path: str, pixel_range: tuple[int, int]) -> tuple[str, np.ndarray | str]:
    try:
        data = read_bytes(path)
    except Exception as error:  # of many kinds, by the file system
        return path, f"cannot be read: {one_line(error)}"
    if not data:
        return path, "the image file is empty"
    file = io.BytesIO(data)
    try:
        return path, read_image(file, pixel_range)
    except PanopticError as error:
        return path, one_line(error).replace(repr(file), "it")
