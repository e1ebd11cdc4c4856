"""Panoptic quality of result files in the COCO panoptic format."""

import concurrent.futures
import functools
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.coco_json import category_table, matching_id
from tf_panoptic_fpn.formats.coco_panoptic import PanopticAnnotation, panoptic_annotations
from tf_panoptic_fpn.formats.json_file import read_lists
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_ids
from tf_panoptic_fpn.messages import written
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality

_CHUNK = 16  # images that a worker scores before it reports
Listed = tuple[int | str, str, list[dict[str, Any]]]  # see `_plain`


def evaluate_panoptic_files(
    gt_json: str | os.PathLike,
    pred_json: str | os.PathLike,
    gt_dir: str | os.PathLike | None = None,
    pred_dir: str | os.PathLike | None = None,
    strict: bool = False,
    splits: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Scores COCO panoptic results against their ground truth.

    A worker for each core reads and scores the images, so that no more maps are in memory than two
    for each core. Predictions for images that the ground truth lacks are not looked at.

    Args:
        gt_json: file with `categories` and `annotations`, each with `image_id`, `file_name` and
            `segments_info`.
        pred_json: file with `annotations`.
        gt_dir, pred_dir: folders of the PNGs; by default the JSON's path without `.json`.
        strict: see `PanopticQuality`; by default the figures are panopticapi's.
        splits: see `PanopticQuality.result`.

    Returns:
        dict, see `PanopticQuality.result`, and `num_mismatched`: in how many images the ids or
        areas in the JSON of the ground truth are not those of its PNG (only where not `strict`).

    Raises:
        DataError: if a file cannot be read, a prediction is missing or doubled, a map and its JSON
            contradict each other, or a split names an unknown category.
    """
    gt_dir, pred_dir = gt_dir or default_dir(gt_json), pred_dir or default_dir(pred_json)
    categories = _read_categories(gt_json)
    pairs = _pair_annotations(gt_json, pred_json, categories)
    for folder in (gt_dir, pred_dir):
        if not os.path.isdir(folder):
            raise DataError(f"{folder}: the folder of panoptic PNGs is missing")

    total = PanopticQuality(categories, strict)
    total.result(splits)  # fails now, not when all is counted, if a split is wrong
    score = functools.partial(_score, categories, strict, gt_dir, pred_dir)
    chunks = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    with (
        tqdm(total=len(pairs), unit="image", disable=None) as progress,  # only on a terminal
        _worker_pool(len(chunks)) as pool,
    ):
        for quality, chunk in zip(pool.map(score, chunks), chunks, strict=True):
            total.merge(quality)
            progress.update(len(chunk))
    return {**total.result(splits), "num_mismatched": total.num_mismatched}


def _worker_pool(num_tasks: int) -> concurrent.futures.Executor:
    """An executor with a worker for each core, but not more than tasks."""
    num_cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    num_workers = min(num_cores, num_tasks)
    if sys.platform == "linux" and num_workers > 1:
        # The workers run neither TensorFlow nor BLAS, so that forking beside their threads is safe.
        context = multiprocessing.get_context("fork")
        return concurrent.futures.ProcessPoolExecutor(num_workers, context)
    # Elsewhere, each process would import TensorFlow anew.
    return concurrent.futures.ThreadPoolExecutor(num_workers)


def _score(
    categories: CategoryTable,
    strict: bool,
    gt_dir: str | os.PathLike,
    pred_dir: str | os.PathLike,
    pairs: Sequence[tuple[Listed, Listed]],
) -> PanopticQuality:
    """A `PanopticQuality` of pairs of annotations."""
    quality = PanopticQuality(categories, strict)
    for (image_id, gt_name, gt_segments), (_, pred_name, pred_segments) in pairs:
        quality.update(
            _read_map(gt_dir, image_id, gt_name),
            gt_segments,
            _read_map(pred_dir, image_id, pred_name),
            pred_segments,
            image=f"image id {image_id} ({pred_name})",
        )
    return quality


def default_dir(json_path: str | os.PathLike) -> str:
    """Folder of the PNGs of a COCO panoptic file: `X` for `X.json`."""
    return str(json_path).removesuffix(".json")


def format_pq_table(result: Mapping[str, Any]) -> str:
    """The table that panopticapi prints, with a row for each further split.

    Args:
        result: see `PanopticQuality.result`.

    Returns:
        str, of several lines; `-` where a split has no class to average.
    """
    rows = [(name, result[name]) for name in ("All", "Things", "Stuff")]
    lines = [f"{'':10s}| {'PQ':>5s}  {'SQ':>5s}  {'RQ':>5s} {'N':>5s}", "-" * 38]
    for name, means in [*rows, *result.get("splits", {}).items()]:
        pq, sq, rq = (
            f"{100 * means[key]:5.1f}" if means["n"] else f"{'-':>5s}" for key in ("PQ", "SQ", "RQ")
        )
        lines.append(f"{name:10s}| {pq}  {sq}  {rq} {means['n']:5d}")
    return "\n".join(lines)


def _read_categories(path: str | os.PathLike) -> CategoryTable:
    lists = read_lists(path, ("categories",))
    entries = lists["categories"] if lists else []
    for entry in entries:
        if "isthing" not in entry:
            raise DataError(f"{path}: the key `isthing` is missing. Received: {written(entry)}")
    # The name may be left out.
    return category_table([{"name": str(e.get("id")), **e} for e in entries], path)


def _pair_annotations(
    gt_json: str | os.PathLike, pred_json: str | os.PathLike, categories: CategoryTable
) -> list[tuple[Listed, Listed]]:
    """Pairs each annotation of the ground truth with the prediction of the same image."""
    gt = {a.image_id: a for a in panoptic_annotations(gt_json, categories, Breaches())}
    if not gt:
        raise DataError(f"{gt_json}: there are no annotations")
    pred = {}
    for annotation in panoptic_annotations(pred_json, categories, Breaches()):
        image_id = matching_id(annotation.image_id, gt)
        if image_id in pred:
            raise DataError(f"{pred_json}: image id {image_id} has more than one annotation")
        if image_id is not None:
            pred[image_id] = annotation
    missing = [image_id for image_id in gt if image_id not in pred]
    if missing:
        raise DataError(
            f"{pred_json}: no prediction for image id {missing[0]} "
            f"({len(missing)} of {len(gt)} images have none)"
        )
    return [(_plain(annotation), _plain(pred[image_id])) for image_id, annotation in gt.items()]


def _plain(annotation: PanopticAnnotation) -> Listed:
    """Id of the image, file name of the map, and the segments as `PanopticQuality` takes them."""
    segments = [
        {"id": s.id, "category_id": s.category_id, "iscrowd": int(s.is_crowd)}
        | ({} if s.area is None else {"area": s.area})
        for s in annotation.segments
    ]
    return annotation.image_id, annotation.file_name, segments


def _read_map(folder: str | os.PathLike, image_id: int | str, file_name: str) -> np.ndarray:
    try:
        return read_panoptic_ids(os.path.join(folder, file_name))
    except DataError as error:
        raise DataError(f"image id {image_id}: {error}") from None
