"""Panoptic quality of result files in the COCO panoptic format."""

import concurrent.futures
import functools
import multiprocessing
import os
import sys

from tqdm import tqdm

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.json_tree import read_json
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_ids
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality

_CHUNK = 16  # images that a worker scores before it reports


def evaluate_panoptic_files(
    gt_json, pred_json, gt_dir=None, pred_dir=None, strict=False, splits=None
):
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
    gt_tree = read_json(gt_json, dict)
    categories = _read_categories(gt_tree, gt_json)
    pairs = _pair_annotations(gt_tree, gt_json, read_json(pred_json, dict), pred_json)
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


def _worker_pool(num_tasks):
    """An executor with a worker for each core, but not more than tasks."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    num_workers = min(num_cores, num_tasks)
    if sys.platform == "linux" and num_workers > 1:
        # The workers run neither TensorFlow nor BLAS, so that forking beside their threads is safe.
        context = multiprocessing.get_context("fork")
        return concurrent.futures.ProcessPoolExecutor(num_workers, context)
    # Elsewhere, each process would import TensorFlow anew.
    return concurrent.futures.ThreadPoolExecutor(num_workers)


def _score(categories, strict, gt_dir, pred_dir, pairs):
    """A `PanopticQuality` of pairs of annotations."""
    quality = PanopticQuality(categories, strict)
    for gt, pred in pairs:
        quality.update(
            _read_map(gt_dir, gt),
            gt["segments_info"],
            _read_map(pred_dir, pred),
            pred["segments_info"],
            image=f"image id {gt['image_id']} ({pred['file_name']})",
        )
    return quality


def default_dir(json_path):
    """Folder of the PNGs of a COCO panoptic file: `X` for `X.json`."""
    return str(json_path).removesuffix(".json")


def format_pq_table(result):
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


def _list(tree, key, where):
    """The list of objects under a key."""
    entries = tree.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{where}: `{key}` must be a list of objects")
    return entries


def _check_types(entries, types, where):
    """Demands of each object these keys, with values of these types."""
    for entry in entries:
        for key, kind in types.items():
            if not isinstance(entry.get(key), kind):
                shown = {k: v for k, v in entry.items() if not isinstance(v, (list, dict))}
                raise DataError(f"{where}: `{key}` is missing or of the wrong type in {shown}")


def _read_categories(tree, file):
    entries = _list(tree, "categories", file)
    _check_types(entries, {"id": int, "isthing": int}, file)
    # The name may be left out; and as in panopticapi, only 1 makes a thing.
    entries = [{"name": e["id"], **e, "isthing": e["isthing"] == 1} for e in entries]
    return CategoryTable.from_coco(entries, file)


def _pair_annotations(gt_tree, gt_json, pred_tree, pred_json):
    """Pairs each annotation of the ground truth with the prediction of the same image."""
    gt = _annotations_by_image(gt_tree, gt_json)
    pred = _annotations_by_image(pred_tree, pred_json)
    if not gt:
        raise DataError(f"{gt_json}: there are no annotations")
    missing = [image_id for image_id in gt if image_id not in pred]
    if missing:
        raise DataError(
            f"{pred_json}: no prediction for image id {missing[0]} "
            f"({len(missing)} of {len(gt)} images have none)"
        )
    return [(annotation, pred[image_id]) for image_id, annotation in gt.items()]


def _annotations_by_image(tree, file):
    annotations = _list(tree, "annotations", file)
    _check_types(annotations, {"image_id": (int, str), "file_name": str}, file)
    by_image = {}
    for annotation in annotations:
        image_id = annotation["image_id"]
        where = f"{file}: image id {image_id}"
        if image_id in by_image:
            raise DataError(f"{where} has more than one annotation")
        segments = _list(annotation, "segments_info", where)
        _check_types(segments, {"id": int, "category_id": int}, where)
        with_area = [segment for segment in segments if "area" in segment]
        _check_types(with_area, {"area": (int, float)}, where)
        by_image[image_id] = annotation
    return by_image


def _read_map(folder, annotation):
    try:
        return read_panoptic_ids(os.path.join(folder, annotation["file_name"]))
    except DataError as error:
        raise DataError(f"image id {annotation['image_id']}: {error}") from None
