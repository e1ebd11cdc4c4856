"""The rules of panopticapi's evaluation, written out slowly; at its cost, for the benchmark.

Reference: https://github.com/cocodataset/panopticapi, `panopticapi/evaluation.py`.
"""

import collections
import multiprocessing

import numpy as np
from PIL import Image

IDS = 1 << 24  # more than any id


def to_ids(rgb):
    rgb = rgb.astype(np.uint32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def areas_of(labels):
    found, areas = np.unique(labels, return_counts=True)
    return dict(zip(found.tolist(), areas.tolist(), strict=True))


def image_counts(gt_rgb, gt_segments, pred_rgb, pred_segments, category_ids):
    """Sum of IoU, tp, fp, fn of each category in one image.

    Args:
        gt_rgb, pred_rgb: uint8 `[H, W, 3]`.
        gt_segments, pred_segments: lists of dicts, as the JSON has them; `gt_segments` with `area`.
        category_ids: set of ints.

    Returns:
        dict category id -> list of four numbers.
    """
    gt_ids, pred_ids = to_ids(gt_rgb), to_ids(pred_rgb)
    gt = {s["id"]: s for s in gt_segments}
    pred = {s["id"]: s for s in pred_segments}

    pred_areas = areas_of(pred_ids)
    for label in pred_areas:
        if label and label not in pred:
            raise KeyError(f"id {label} is in the PNG and not in the JSON")
        if label and pred[label]["category_id"] not in category_ids:
            raise KeyError(f"id {label} has an unknown category")
    if set(pred) - set(pred_areas):
        raise KeyError("an id is in the JSON and not in the PNG")

    pairs = gt_ids.astype(np.uint64) * IDS + pred_ids.astype(np.uint64)
    overlaps = {divmod(pair, IDS): count for pair, count in areas_of(pairs).items()}

    counts = collections.defaultdict(lambda: [0.0, 0, 0, 0])
    matched_gt, matched_pred = set(), set()
    for (g, p), overlap in overlaps.items():
        if g not in gt or p not in pred or gt[g]["iscrowd"] == 1:
            continue
        if gt[g]["category_id"] != pred[p]["category_id"]:
            continue
        union = pred_areas[p] + gt[g]["area"] - overlap - overlaps.get((0, p), 0)
        iou = overlap / union
        if iou > 0.5:
            counts[gt[g]["category_id"]][0] += iou
            counts[gt[g]["category_id"]][1] += 1
            matched_gt.add(g)
            matched_pred.add(p)

    crowd_of_category = {}
    for g, s in gt.items():
        if s["iscrowd"] == 1:
            crowd_of_category[s["category_id"]] = g  # the last one stays
        elif g not in matched_gt:
            counts[s["category_id"]][3] += 1

    for p, s in pred.items():
        if p not in matched_pred:
            excused = overlaps.get((0, p), 0)
            if s["category_id"] in crowd_of_category:
                excused += overlaps.get((crowd_of_category[s["category_id"]], p), 0)
            if excused / pred_areas[p] <= 0.5:
                counts[s["category_id"]][2] += 1
    return counts


def add_counts(images):
    """Adds up the counts of images."""
    totals = collections.defaultdict(lambda: [0.0, 0, 0, 0])
    for counts in images:
        for category_id, values in counts.items():
            totals[category_id] = [a + b for a, b in zip(totals[category_id], values, strict=True)]
    return totals


def averages(totals, category_ids):
    """`(PQ, SQ, RQ, n)` over categories; fails where none of them occurs."""
    sums, n = np.zeros(3), 0
    for category_id in category_ids:
        iou, tp, fp, fn = totals.get(category_id, [0.0, 0, 0, 0])
        if tp + fp + fn:
            weight = tp + fp / 2 + fn / 2
            sums += iou / weight, iou / tp if tp else 0, tp / weight
            n += 1
    return (*(float(value) / n for value in sums), n)


def evaluate_files(pairs, category_ids):
    """Counts of `(gt path, gt segments, pred path, pred segments)`, in a process for each core."""
    num_processes = multiprocessing.cpu_count()
    parts = [pairs[start::num_processes] for start in range(num_processes)]
    with multiprocessing.get_context("fork").Pool(num_processes) as pool:
        return add_counts(pool.starmap(evaluate_part, [(part, category_ids) for part in parts]))


def evaluate_part(pairs, category_ids):
    """The same in one process."""
    totals = add_counts(
        image_counts(
            np.array(Image.open(gt_path), np.uint32),
            gt_segments,
            np.array(Image.open(pred_path), np.uint32),
            pred_segments,
            category_ids,
        )
        for gt_path, gt_segments, pred_path, pred_segments in pairs
    )
    return dict(totals)
