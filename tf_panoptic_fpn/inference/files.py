"""Segments image and video files and writes what comes out."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Self, TypeVar

import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DamagedFileError, PanopticError
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.media.sources import Input
from tf_panoptic_fpn.media.video import VideoReader, VideoWriter
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.workdir import Workdir

OUTPUTS = ("overlay", "png", "json", "coco", "labelme")
T = TypeVar("T")
WAITING_BATCHES = 4  # of images that wait for others of their size, and of results to be written


@dataclasses.dataclass(frozen=True)
class _Picture:
    """An image or a frame that was read; `stem` is that of its outputs, `path` of an image."""

    image_id: int
    file_name: str
    stem: str
    image: np.ndarray
    path: pathlib.Path | None = None


Write = Callable[[_Picture, Result], None]


def predict_files(
    predictor: ImagePredictor,
    inputs: Sequence[Input],
    output: str | os.PathLike,
    batch_size: int = 1,
    write: Sequence[str] = ("overlay", "png", "json"),
) -> None:
    """Segments images and videos.

    Images of one size are run together. While the predictor works, one thread reads ahead and
    another draws and writes; what they hold is bounded, whatever the number of files and frames.

    Written for an image, by the names in `write`: "overlay", `STEM_overlay.png`; "png",
    `STEM_panoptic.png` (ids, COCO's RGB code); "json", `STEM.json` (the segments). For a video:
    "overlay", `STEM_overlay.mp4`, at its rate; the others as for images, `STEM_frames/000000...`.
    "labelme": `labelme/STEM.json`, for a person to correct; frames of a video lie in the file.
    "coco": for all together `panoptic.json` with `panoptic/*.png`, and `instances.json`.

    Args:
        predictor: an `ImagePredictor`.
        inputs: list of `sources.Input`.
        output: folder to write to.
        batch_size: int, images to run at once.
        write: names of `OUTPUTS`.

    Raises:
        PanopticError: when all is done, if files could not be read; one line that names them. At
            once, if an output cannot be written.
    """
    folder = Workdir(output)
    folder.create()
    failed: list[str] = []
    image_ids = itertools.count(1)
    images = [entry for entry in inputs if not entry.is_video]
    videos = [entry for entry in inputs if entry.is_video]
    try:
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(tqdm(total=len(images), unit="image"))
            files = stack.enter_context(_Files(folder.path, predictor.categories, write))
            pictures = _read_images(images, predictor.pixel_range, image_ids, failed)
            _run(predictor, pictures, batch_size, files.write_image, progress)
            for entry in videos:
                try:
                    reader = VideoReader(entry.path)
                except DamagedFileError as error:
                    failed.append(str(error))
                    continue
                progress.total += reader.num_frames
                pictures = _read_frames(entry, reader, image_ids, failed)
                with reader, files.video(entry, reader.rate) as write_frame:
                    _run(predictor, pictures, batch_size, write_frame, progress)
    except OSError as error:
        path = error.filename or output
        raise PanopticError(f"{path}: cannot be written: {error.strerror or error}") from None
    if failed:
        raise PanopticError("; ".join(failed))


def _run(
    predictor: ImagePredictor,
    pictures: Iterator[_Picture],
    batch_size: int,
    write: Write,
    progress: tqdm,
) -> None:
    """Calls `write(picture, result)` for each picture, in a second thread, in order."""
    pending: collections.deque[concurrent.futures.Future] = collections.deque()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as reader,
        concurrent.futures.ThreadPoolExecutor(1) as writer,
    ):

        def write_batch(batch: list[_Picture], results: list[Result]) -> None:
            for picture, result in zip(batch, results, strict=True):
                result.file_name = picture.file_name
                write(picture, result)
                progress.update()

        for batch in _batches(read_ahead(pictures, reader, batch_size), batch_size):
            results = predictor.predict_batch(np.stack([p.image for p in batch]))
            pending.append(writer.submit(write_batch, batch, results))
            if len(pending) > WAITING_BATCHES:
                pending.popleft().result()
        for future in pending:
            future.result()


def _read_images(
    inputs: Iterable[Input],
    pixel_range: tuple[int, int],
    image_ids: Iterator[int],
    failed: list[str],
) -> Iterator[_Picture]:
    for entry in inputs:
        try:
            image = read_image(entry.path, pixel_range)
        except PanopticError as error:
            failed.append(str(error))
            continue
        yield _Picture(next(image_ids), entry.file_name, entry.stem, image, entry.path)


def _read_frames(
    entry: Input, reader: VideoReader, image_ids: Iterator[int], failed: list[str]
) -> Iterator[_Picture]:
    try:
        for number, image in enumerate(reader):
            name = f"{number:06d}"
            stem = f"{entry.stem}_frames/{name}"
            yield _Picture(next(image_ids), f"{entry.file_name}/{name}", stem, image)
    except DamagedFileError as error:
        failed.append(str(error))


def read_ahead(items: Iterator[T], reader: concurrent.futures.Executor, count: int) -> Iterator[T]:
    """Yields the same, while a thread reads up to `count` ahead."""
    pending = collections.deque(reader.submit(next, items, None) for _ in range(count))
    while (item := pending.popleft().result()) is not None:
        pending.append(reader.submit(next, items, None))
        yield item


def _batches(pictures: Iterable[_Picture], batch_size: int) -> Iterator[list[_Picture]]:
    """Yields lists of up to `batch_size` pictures of one size, in order of reading."""
    waiting: dict[tuple[int, ...], list[_Picture]] = collections.defaultdict(list)  # by size
    for picture in pictures:
        same = waiting[picture.image.shape]
        same.append(picture)
        if len(same) == batch_size:
            yield waiting.pop(picture.image.shape)
        elif sum(map(len, waiting.values())) >= WAITING_BATCHES * batch_size:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


class _Files:
    """The folder that results are written to; a context manager."""

    def __init__(
        self, folder: pathlib.Path, categories: CategoryTable, write: Sequence[str]
    ) -> None:
        self._folder = folder
        self._categories = categories
        self._write = write
        self._coco: CocoResults | None = None

    def __enter__(self) -> Self:
        if "coco" in self._write:
            self._coco = CocoResults(self._folder, self._categories)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._coco:
            self._coco.__exit__(*error)

    def write_image(self, picture: _Picture, result: Result) -> None:
        self._write_results(picture, result, self._write)

    @contextlib.contextmanager
    def video(self, entry: Input, rate: Fraction) -> Iterator[Write]:
        """Opens the overlay of a video; yields what writes a frame of it."""
        others = [name for name in self._write if name != "overlay"]
        if others == [*self._write]:
            yield self.write_image
            return
        path = self._folder / f"{entry.stem}_overlay.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, VideoWriter(partial, rate) as overlay:

            def write_frame(picture: _Picture, result: Result) -> None:
                self._write_results(picture, result, others)
                overlay.write(np.asarray(result.draw()))

            yield write_frame

    def _write_results(self, picture: _Picture, result: Result, write: Sequence[str]) -> None:
        result.save(self._folder, picture.stem, write, picture.path)
        if self._coco:
            path = self._folder / "panoptic" / f"{picture.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_panoptic_png(result.panoptic_map, path)
            self._coco.add(result.to_coco(picture.image_id, picture.stem))


class CocoResults:
    """`panoptic.json` and `instances.json`, whose long lists are written as they come.

    A context manager: without an error the files get their names, else they stay `NAME.partial`.
    """

    def __init__(self, folder: pathlib.Path, categories: CategoryTable) -> None:
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._panoptic = _JsonList(folder / "panoptic.json", '{"annotations": ')
        self._instances = _JsonList(folder / "instances.json", "")

    def add(self, entries: Mapping[str, Any]) -> None:
        """Adds what `Result.to_coco` returned."""
        self._images.append(entries["image"])
        self._panoptic.append(entries["annotation"])
        for instance in entries["instances"] or []:
            self._instances.append(instance)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        is_complete = error_type is None
        images = sorted(self._images, key=lambda image: image["id"])
        categories = self._categories.to_coco()
        end = f', "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}'
        self._panoptic.close(end, is_complete)
        self._instances.close("", is_complete)


class _JsonList:
    """A JSON file with one long list, written entry by entry."""

    def __init__(self, path: pathlib.Path, before: str) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._file = self._partial.open("w", encoding="utf-8")
        self._file.write(f"{before}[")
        self._separator = "\n"

    def append(self, entry: Any) -> None:
        self._file.write(self._separator + json.dumps(entry))
        self._separator = ",\n"

    def close(self, after: str, is_complete: bool) -> None:
        self._file.write(f"]{after}")
        self._file.close()
        if is_complete:
            self._partial.rename(self._path)
