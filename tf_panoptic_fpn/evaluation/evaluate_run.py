"""The evaluation of a trained model on its validation split, with all its files."""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import Config, MergeConfig, format_config
from tf_panoptic_fpn.data.class_shares import class_shares, class_shares_of_records
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.splits import check_categories, load_index, load_split, resolve_data
from tf_panoptic_fpn.data.tfrecords import records_folder
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.evaluation.evaluator import Predict, Sample, evaluate
from tf_panoptic_fpn.evaluation.report import GalleryEntry, write_report
from tf_panoptic_fpn.evaluation.result_files import ResultFiles, write_submission
from tf_panoptic_fpn.evaluation.running_metrics import (
    check_occurring,
    coco_segments,
    occurring_categories,
)
from tf_panoptic_fpn.evaluation.shares import Machines, predict_shares, share_of
from tf_panoptic_fpn.evaluation.threshold_sweep import ThresholdSweep, sweep_overrides
from tf_panoptic_fpn.formats.records import PanopticSplit
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.load_predictor import load_predictors, need_tensorflow
from tf_panoptic_fpn.inference.merge import Merger
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.workdir import Workdir

GALLERY_IMAGES = 3  # of each kind


def evaluate_run(
    source: ModelSource,
    output: str | os.PathLike | None = None,
    *,
    tta: bool = False,
    balance_classes: bool = False,
    sweep: Sequence[str] = (),
    submission: str | None = None,
    machines: Machines | None = None,
    predictor: ImagePredictor | None = None,
) -> dict[str, Any]:
    """Evaluates a model on the validation split of its configuration.

    Writes `results.json`, `report.html` and `predictions/` in `output`. Killed half-way, the same
    call goes on with the images that are not done.

    Args:
        source: `ModelSource`; of a run, or with a configuration.
        output: folder, by default that of the run.
        tta: bool, whether to look at each image several times, by the section `tta`.
        balance_classes: bool, whether to relate the probabilities of the semantic classes to their
            shares in the training data.
        sweep: strings `merge.KEY=VALUE,VALUE...`, see `sweep_overrides`.
        submission: name, see `write_submission`, or None.
        machines: those that share the predictions, all of which call this; by default this alone.
        predictor: the `predictor_of` this source, if it is loaded already; not for `tta` and
            `balance_classes`.

    Returns:
        The results, see `evaluation.evaluator.evaluate`; {} on all machines but the first.

    Raises:
        ConfigError: if the model cannot be loaded or does not fit, or a setting breaks a rule.
        DataError: if the data set breaks a rule or has no ground truth.
    """
    files = Workdir(output) if output else source.workdir
    if files is None:
        raise ConfigError(f"--output must be given: {source.name} is not the folder of a run")
    if not source.has_data:
        raise ConfigError(f"--config must name the data set: {source.name} is not a run")
    if source.categories_file:
        raise ConfigError("--categories cannot be given: those of the data set are taken")
    need_tensorflow({"--sweep": bool(sweep), "--balance-classes": balance_classes})
    config = source.load_config()
    settings = [source.load_config(overrides).merge for overrides in sweep_overrides(sweep)]
    files.create()
    if source.config:
        config = resolve_data(config, files.path)
    split = load_split(config.data, "validation", config.model.semantic_things)
    check_categories(config, split.categories, "validation")
    check_occurring(any(map(occurring_categories, split.images)))
    if settings and not split.has_panoptic:
        raise ConfigError("--sweep needs panoptic ground truth, which the data set has not")
    shares = None
    if balance_classes:
        shares = _class_shares(config).tolist()
    predictors = load_predictors(source, config, split.categories, tta, shares, predictor)
    identity = _identity(source, config, split, tta, shares)
    folders = []
    if machines and machines.count > 1:
        folders = _predict_shares(machines, predictors, split, files, identity, bool(settings))
        if machines.index:
            return {}
    qualities: list[float | None] = []
    with tqdm(desc="evaluate", total=len(split.images), unit="image") as progress:

        def count(sample: Sample, result: Result, quality: float | None) -> None:
            qualities.append(quality)
            progress.update()

        results = evaluate(
            predictors,
            evaluation_samples(split),
            split.categories,
            files.predictions,
            has_panoptic=split.has_panoptic,
            sweep=_sweep(settings, split.categories),
            identity=identity,
            cityscapes=config.data.validation.format == "cityscapes",
            shares=folders,
            on_image=count,
        )
    shutil.rmtree(files.shares, ignore_errors=True)
    write_text(files.results, json.dumps(results, indent=1))
    gallery = _gallery(split, qualities, files.predictions, identity)
    write_report(files.report, results, gallery, format_config(config), split.categories)
    if submission:
        write_submission(files.predictions, submission)
    return results


def _predict_shares(
    machines: Machines,
    predictors: Sequence[Predict],
    split: PanopticSplit,
    files: Workdir,
    identity: dict[str, Any],
    keeps_detections: bool,
) -> list[pathlib.Path]:
    """`predict_shares` with a bar."""
    images = len(share_of(split, machines).images)
    with tqdm(desc="predict", total=images, unit="image") as progress:
        return predict_shares(
            machines,
            predictors,
            split,
            files.shares,
            identity,
            keeps_detections,
            on_image=lambda *_: progress.update(),
        )


def _sweep(settings: Sequence[MergeConfig], categories: CategoryTable) -> ThresholdSweep | None:
    if not settings:
        return None
    return ThresholdSweep(Merger(categories), settings, categories)


def _class_shares(config: Config) -> np.ndarray:
    """Shares of the training data, of its files or, where it has records alone, of these."""
    semantic_things = config.model.semantic_things
    if config.data.train.paths(""):
        return class_shares(load_split(config.data, "train", semantic_things))
    index = load_index(config.data, "train", semantic_things)
    return class_shares_of_records(index, records_folder(config.data))


def _identity(
    source: ModelSource,
    config: Config,
    split: PanopticSplit,
    tta: bool,
    shares: Sequence[float] | None,
) -> dict[str, Any]:
    """What the predictions depend on beside the images; the ground truth is read each time."""
    validation = config.data.validation
    return {
        "model": source.fingerprint(),
        "data": [config.data.root, validation.images],
        "categories": split.categories.to_coco(),
        "merge": config.merge.model_dump(),
        "image size": [validation.short_sides[0], validation.max_long_side],
        "test-time augmentation": config.tta.model_dump() if tta else None,
        "class shares": shares,
    }


def _gallery(
    split: PanopticSplit,
    qualities: Sequence[float | None],
    predictions: str | os.PathLike,
    identity: dict[str, Any],
) -> list[GalleryEntry]:
    """Reads the images of the best, the median and the worst PQ."""
    known = {position: pq for position, pq in enumerate(qualities) if pq is not None}
    kinds = _choose(known)
    samples = evaluation_samples(
        dataclasses.replace(split, images=[split.images[position] for position in kinds])
    )
    entries = []
    with ResultFiles(predictions, split.categories, identity) as files:
        for (position, kind), (record, image, ids) in zip(kinds.items(), samples, strict=True):
            line = files.finished(record)
            if line is None:
                raise DataError(f"{record.image_path}: has changed while it was evaluated")
            result = files.read(line)
            result.image = image
            entries.append(GalleryEntry(kind, known[position], ids, coco_segments(record), result))
    return entries


def _choose(qualities: Mapping[int, float]) -> dict[int, str]:
    """Dict: position of an image -> "best", "median" or "worst"; none is listed twice."""
    ranked = sorted(qualities, key=lambda position: -qualities[position])
    middle = max((len(ranked) - GALLERY_IMAGES) // 2, 0)
    kinds = {
        **dict.fromkeys(ranked[middle : middle + GALLERY_IMAGES], "median"),
        **dict.fromkeys(ranked[-GALLERY_IMAGES:], "worst"),
        **dict.fromkeys(ranked[:GALLERY_IMAGES], "best"),
    }
    return {position: kinds[position] for position in ranked if position in kinds}
