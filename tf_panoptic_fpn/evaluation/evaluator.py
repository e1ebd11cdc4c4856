"""Scores a predictor on a data set: panoptic quality, box and mask AP, semantic IoU."""

import collections
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import statistics
import time
import typing
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.cityscapes_results import write_cityscapes
from tf_panoptic_fpn.evaluation.result_files import ResultFiles
from tf_panoptic_fpn.evaluation.running_metrics import RunningMetrics, coco_segments
from tf_panoptic_fpn.evaluation.threshold_sweep import ThresholdSweep
from tf_panoptic_fpn.formats.records import ImageRecord
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.visualize import draw_panoptic, side_by_side

SCORING_THREADS = 4
IMAGES_AHEAD = 2  # that wait for each predictor
Predict = Callable[[np.ndarray], Result]
Sample = tuple[ImageRecord, np.ndarray, np.ndarray]  # see `evaluate`
OnImage = Callable[[Sample, Result, float | None], None]


def evaluate(
    predictor: Predict | Sequence[Predict],
    samples: Iterable[Sample],
    categories: CategoryTable,
    output_dir: str | os.PathLike | None = None,
    num_overlays: int = 8,
    *,
    has_panoptic: bool = True,
    sweep: ThresholdSweep | None = None,
    identity: dict[str, Any] | None = None,
    cityscapes: bool = False,
    shares: Sequence[str | os.PathLike] = (),
    on_image: OnImage | None = None,
) -> dict[str, Any]:
    """Scores a predictor at the size of the images.

    Each predictor works in a thread of its own, threads behind it encode and write what it
    predicted, and this one reads on and counts, in the order of the samples: the results do not
    depend on the number of predictors. No more than a few images are in memory.

    Args:
        predictor: function of a uint8 `[H, W, 3]` image that returns its `Result`, such as an
            `ImagePredictor`, or a list of such functions that give the same and may run at once.
        samples: iterable of (record, image uint8 `[H, W, 3]`, ids int32 `[H, W]`); the record has
            `image_id`, `file_name`, `image_path`, `height`, `width`, `segments`, each with `id`,
            `category_id`, `is_crowd`, and `instances`, None if the things of the map are the
            instances.
        categories: `CategoryTable`.
        output_dir: folder to write to: `panoptic.json` and `panoptic/*.png` (COCO panoptic
            results), `instances.json` (COCO instance results), `semantic/*.png` (the semantic
            class of each pixel), `overlays/*.jpg` and `records.jsonl` (what is known of each
            image). None: nothing is written.
        num_overlays: number of images, from the first, to draw beside their ground truth.
        has_panoptic: bool; False where the ground truth has no panoptic maps: then no PQ.
        sweep: a `ThresholdSweep`, or None.
        identity: dict for JSON, what the predictions depend on beside the images. Images that
            `output_dir` holds with the same identity, finished by an evaluation that was killed,
            are not predicted again. None: all are.
        cityscapes: bool, whether to write Cityscapes' result files to `output_dir/cityscapes`.
        shares: folders to which `predict_files` has just written some of the images; these are
            not predicted again.
        on_image: function, called when an image is done with its sample, its `Result` and its PQ,
            or None.

    Returns:
        dict: `panoptic` (see `PanopticQuality.result`), `box_ap` and `mask_ap` (see `coco_ap`),
        `semantic` (see `SemanticIoU.result`), `sweep`, `absent_classes` (names of the classes that
        do not occur in the ground truth), `images`, and `seconds_per_image`, the median time of a
        predictor alone; without what the predictor leaves out.

    Raises:
        DataError: if there is no sample, none has ground truth, or a sample and its prediction
            differ in size.
    """
    predictors: Sequence[Predict] = [predictor] if callable(predictor) else predictor
    scores = RunningMetrics(categories, has_panoptic, sweep)
    seconds = []
    with contextlib.ExitStack() as stack:

        def opened(folder: str | os.PathLike, is_elsewhere: bool = False) -> ResultFiles:
            keeps_detections = scores.needs_detections
            files = ResultFiles(folder, categories, identity, keeps_detections, is_elsewhere)
            return stack.enter_context(files)

        files = None if output_dir is None else opened(output_dir)
        elsewhere = [opened(folder, is_elsewhere=True) for folder in shares]
        prepare = _Preparation(files, scores, categories, cityscapes, elsewhere)
        images = _predicted_images(samples, predictors, prepare, num_overlays)
        for sample, image in stack.enter_context(contextlib.closing(images)):
            result, spent, swept = image.prepared.result()
            quality = scores.update(sample[0], sample[2], result, swept)
            if files and image.line:
                files.keep(image.line)
            elif files:
                files.append(sample[0], image.stem, result, spent)
            seconds.append(spent)
            if on_image:
                on_image(sample, result, quality)
        if not seconds:
            raise DataError("Evaluation needs at least one image. Received: none")
        results = scores.result()
        if files:
            files.write_coco()
    timing = {"images": len(seconds), "seconds_per_image": statistics.median(seconds)}
    return {**results, **timing}


def predict_files(
    predictor: Predict | Sequence[Predict],
    samples: Iterable[Sample],
    categories: CategoryTable,
    output_dir: str | os.PathLike,
    identity: dict[str, Any],
    keeps_detections: bool = False,
    on_image: OnImage | None = None,
) -> None:
    """Predicts images for an `evaluate` elsewhere, which counts them.

    Args:
        predictor, samples, categories, identity, on_image: see `evaluate`; the PQ is None.
        output_dir: folder to write to; what it holds with the same identity is kept.
        keeps_detections: bool, whether that evaluation has a `ThresholdSweep`.

    Raises:
        DataError: if a sample and its prediction differ in size.
    """
    predictors: Sequence[Predict] = [predictor] if callable(predictor) else predictor
    with ResultFiles(output_dir, categories, identity, keeps_detections) as files:
        prepare = _Preparation(files, RunningMetrics(categories), categories)
        with contextlib.closing(_predicted_images(samples, predictors, prepare, 0)) as images:
            for sample, image in images:
                result, spent, _ = image.prepared.result()
                if image.line is None:
                    files.append(sample[0], image.stem, result, spent)
                if on_image:
                    on_image(sample, result, None)


class _Image(typing.NamedTuple):
    """One image under way."""

    stem: str  # of its files; "" where none are written
    line: dict | None  # in the files, if it was finished before
    prepared: concurrent.futures.Future  # of what `_Preparation` returns


def _predicted_images(
    samples: Iterable[Sample],
    predictors: Sequence[Predict],
    prepare: "_Preparation",
    num_overlays: int,
) -> Generator[tuple[Sample, _Image], None, None]:
    """Yields each sample, in order, with its `_Image`, while threads work on some of the next."""
    pending: collections.deque[tuple[Sample, _Image]] = collections.deque()
    num_predicted = 0
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(_threads(1)) for _ in predictors]
        pool = stack.enter_context(_threads(SCORING_THREADS))
        for number, (record, image, ids) in enumerate(samples):
            stem, line = prepare.known(record)
            predicted = None
            if line is None:
                turn = num_predicted % len(predictors)
                shared = prepare.shared(record)
                predict = _timed(predictors[turn], image) if shared is None else shared
                predicted = models[turn].submit(predict)
                num_predicted += 1
            drawn = image if number < num_overlays else None
            prepared = pool.submit(prepare, record, ids, stem, line, predicted, drawn)
            pending.append(((record, image, ids), _Image(stem, line, prepared)))
            if len(pending) > SCORING_THREADS + IMAGES_AHEAD * len(predictors):
                yield pending.popleft()
        yield from pending


class _Preparation:
    """What is done with a prediction in any order, by several threads: encode, write, draw."""

    def __init__(
        self,
        files: ResultFiles | None,
        scores: RunningMetrics,
        categories: CategoryTable,
        cityscapes: bool = False,
        shares: Sequence[ResultFiles] = (),
    ) -> None:
        self._files = files
        self._shares = shares
        self._scores = scores
        self._categories = categories
        self._cityscapes = cityscapes

    def known(self, record: ImageRecord) -> tuple[str, dict | None]:
        """Returns the stem of an image's files, and its line if it is finished, or None."""
        if not self._files:
            return "", None
        return self._files.unique_stem(record), self._files.finished(record)

    def shared(self, record: ImageRecord) -> Callable[[], tuple[Result, float]] | None:
        """Returns what reads an image that another has predicted, and its seconds, or None."""
        for files in self._shares:
            line = files.finished(record)
            if line is not None:
                return functools.partial(_read, files, line)
        return None

    def __call__(
        self,
        record: ImageRecord,
        ids: np.ndarray,
        stem: str,
        line: dict | None,
        predicted: concurrent.futures.Future | None,
        drawn: np.ndarray | None,
    ) -> tuple[Result, float, list | None]:
        """Returns the `Result`, its seconds, and what `RunningMetrics.sweep` makes of it.

        Args:
            record, ids: the image's and its ground truth.
            stem: name of its files, or "".
            line: its line in the files, or None if a predictor was asked.
            predicted: future of a result and its seconds, or None.
            drawn: the image, to write its overlay, or None.
        """
        if self._files and line:
            result, seconds = self._files.read(line), line["seconds"]
        elif predicted is not None:
            result, seconds = predicted.result()
        if result.panoptic_map.shape != ids.shape:
            raise DataError(
                f"{record.file_name}: prediction and ground truth must have one size. "
                f"Received: {result.panoptic_map.shape} and {ids.shape}"
            )
        _ = result.instances  # encodes the masks now, in several threads
        if self._files and not line:
            self._files.write(stem, result)
        if self._files and self._cityscapes:
            write_cityscapes(
                self._files.folder / "cityscapes",
                record.file_name,
                result,
                self._categories,
            )
        if self._files and drawn is not None:
            path = self._files.folder / "overlays" / f"{stem}.jpg"
            self._draw(path, record, drawn, ids, result)
        return result, seconds, self._scores.sweep(record, ids, result)

    def _draw(
        self,
        path: pathlib.Path,
        record: ImageRecord,
        image: np.ndarray,
        ids: np.ndarray,
        result: Result,
    ) -> None:
        picture = draw_beside_truth(record, image, ids, result, self._categories)
        Image.fromarray(picture).save(path, quality=92)


def draw_beside_truth(
    record: ImageRecord,
    image: np.ndarray,
    ids: np.ndarray,
    result: Result,
    categories: CategoryTable,
) -> np.ndarray:
    """Draws a prediction and, to its right, the ground truth.

    Args:
        record, image, ids: a `Sample`.
        result: `Result`.
        categories: `CategoryTable`.

    Returns:
        uint8 `[H', W', 3]`.
    """
    pictures = [
        draw_panoptic(image, result.panoptic_map, result.segments, categories),
        draw_panoptic(image, ids, coco_segments(record), categories),
    ]
    return side_by_side(pictures, [f"prediction: {record.file_name}", "ground truth"])


@contextlib.contextmanager
def _threads(count: int) -> Iterator[concurrent.futures.Executor]:
    """Threads that, after an error, begin nothing more."""
    pool = concurrent.futures.ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _timed(predictor: Predict, image: np.ndarray) -> Callable[[], tuple[Result, float]]:
    """What returns the predictor's `Result`, and the seconds that it took."""

    def predict() -> tuple[Result, float]:
        start = time.perf_counter()
        result = predictor(image)
        return result, time.perf_counter() - start

    return predict


def _read(files: ResultFiles, line: dict[str, Any]) -> tuple[Result, float]:
    return files.read(line), line["seconds"]
