"""Changes to the code that a person could make by mistake, and whether a test fails on each.

    python tests/mutants.py [WORD...]

applies each change whose file or text has one of the words (all, without words) to a copy of the
package, runs the tests named beside it there, prints "killed" or "SURVIVED", and the share of the
killed. Run by hand: `nice python tests/mutants.py metrics` takes a minute, all take an hour.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile

import pytest
import tensorflow  # noqa: F401

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "tf_panoptic_fpn"
TIME_LIMIT = 600  # seconds; a change may make a loop endless

# File in the package -> tests -> (old, new), of which the first occurrence is changed.
MUTANTS = {
    "models/targets.py": {
        "models/test_targets.py": [
            ("RPN_IOU = (0.3, 0.7)", "RPN_IOU = (0.3, 0.72)"),
            ("RPN_IOU = (0.3, 0.7)", "RPN_IOU = (0.32, 0.7)"),
            ("RPN_IOU = (0.3, 0.7)", "RPN_IOU = (0.28, 0.7)"),
            ("ROI_IOU = 0.5", "ROI_IOU = 0.6"),
            ("ROI_IOU = 0.5", "ROI_IOU = 0.4"),
            ("RPN_POSITIVE_FRACTION = 0.5", "RPN_POSITIVE_FRACTION = 0.25"),
            ("ROI_FOREGROUND_FRACTION = 0.25", "ROI_FOREGROUND_FRACTION = 0.5"),
            (" & ~batch[schema.GT_IS_CROWD]", ""),
            (">= 0) & ~", "> 0) & ~"),
            ("allow_low_quality=True", "allow_low_quality=False"),
            ("ops.where(is_candidate, labels, -1)", "labels"),
            (
                'proposal_scores > float("-inf"), gt_valid',
                'proposal_scores > float("-inf"), ~gt_valid',
            ),
            ("ops.where(is_foreground, gt_classes, num_classes)", "gt_classes"),
            ("matched[:, :max_foreground],", "indices[:, :max_foreground],"),
            ("if batch[schema.GT_BOXES].shape[1]:", "if True:"),
            ("schema.GT_CLASSES: -1", "schema.GT_CLASSES: 0"),
        ]
    },
    "models/proposals.py": {
        "models/test_proposals.py": [
            ("self.top_k_train if training else self.top_k_test", "self.top_k_test"),
            ("boxes = clip_boxes(boxes, image_sizes)", ""),
            ("box_areas(boxes) > 0, scores", "box_areas(boxes) >= 0, scores"),
            ("count - 1) + start", "count - 1)"),
            (
                "ops.where(scores[:, :, None] > NO_SCORE, take_rows(boxes, best), 0.0)",
                "take_rows(boxes, best)",
            ),
            (
                "ops.top_k(scores, min(after, levels * k))",
                "ops.top_k(scores, min(before, levels * k))",
            ),
            ("STRIDES = (4, 8, 16, 32, 64)", "STRIDES = (4, 8, 16, 32, 32)"),
            ("super().__init__(autocast=False, **kwargs)", "super().__init__(**kwargs)"),
            ("axis=0), RPN_DELTA_WEIGHTS)", "axis=0), (10.0, 10.0, 5.0, 5.0))"),
        ]
    },
    "models/box_head.py": {
        "models/test_proposals.py": [
            (
                "boxes = clip_boxes(decode_boxes(deltas, boxes, self.delta_weights), image_sizes)",
                "boxes = decode_boxes(deltas, boxes, self.delta_weights)",
            ),
            ("axis=-1)[:, :, :-1]", "axis=-1)[:, :, 1:]"),
            ("probs > self.score_threshold", "probs > 0.1"),
            (" & (roi_scores[:, :, None] > NO_SCORE)", ""),
            ("groups=classes", "groups=None"),
            ("indices % num_classes", "indices // num_classes"),
            ("ops.where(valid, scores, 0.0)", "scores"),
            ("take_rows(classes, indices), -1)", "take_rows(classes, indices), 0)"),
            (
                "super().__init__(autocast=False, **kwargs)\n        self.score",
                "super().__init__(**kwargs)\n        self.score",
            ),
        ],
        "models/test_precision.py -k rois": [
            (
                "super().__init__(autocast=False, **kwargs)  # the",
                "super().__init__(**kwargs)  # the",
            ),
        ],
    },
    "models/panoptic_fpn.py": {
        "models/test_fit.py -k own_number": [
            (
                'dense["image_sizes"],\n            training=True',
                'dense["image_sizes"],\n            training=False',
            ),
        ],
        "models/test_saving.py -k 0_1": [
            (
                'config["pixel_mean"], config["pixel_std"] =',
                'config["pixel_std"], config["pixel_mean"] =',
            )
        ],
    },
    "models/rpn_head.py": {
        "models/test_initializers.py": [
            ("RandomNormal(stddev=0.01)", "RandomNormal(stddev=0.02)"),
        ]
    },
    "models/fpn.py": {
        "models/test_initializers.py": [
            ("VarianceScaling(**XAVIER)", "GlorotUniform()"),
        ]
    },
    "models/fit.py": {
        "models/test_fit.py -k evaluate": [
            ("schema.IMAGE_SIZES), training=False", "schema.IMAGE_SIZES), training=True"),
            ("sample_weight=num_images", "sample_weight=0"),
        ],
        "models/test_fit.py -k replicas": [
            (
                "sum_over_replicas({name: count for name, (_, count) in terms.items()})",
                "{name: count for name, (_, count) in terms.items()}",
            ),
            (" * num_replicas()", ""),
        ],
    },
    "models/mask_head.py": {
        "models/test_precision.py -k rois": [
            ("super().__init__(autocast=False, **kwargs)", "super().__init__(**kwargs)"),
            (
                "dtype=full_dtype(self.compute_dtype),\n            name",
                "dtype=self.dtype_policy,\n            name",
            ),
        ],
    },
    "ops/sampling.py": {
        "models/test_targets.py": [
            ("ANCHORS, ROIS = range(2)", "ANCHORS, ROIS = 0, 0"),
            ("num_samples - num_positives)", "num_samples)"),
            (
                "_count(labels == 0), num_samples - num_foreground",
                "_count(labels == 0), num_samples",
            ),
        ],
        "ops/test_sampling.py -k 'not compiled'": [
            ("ops.minimum(_count(labels == 1), max_positives)", "_count(labels == 1)"),
            ("2 ** (32 - bits) - 1", "2 ** (31 - bits) - 1"),
            ("x = x * 0x7FEB352D", "x = x + 0x7FEB352D"),
        ],
    },
    "ops/matching.py": {
        "ops/test_matching.py -k 'not compiled'": [
            ("best >= high, is_best", "best > high, is_best"),
            ("best < low, 0", "best <= low, 0"),
            ("best_of_gt > 0", "best_of_gt >= 0"),
            (
                "pairwise_iou(gt_boxes[:, rows], boxes), -1)",
                "pairwise_iou(gt_boxes[:, rows], boxes), 0)",
            ),
            ("best_here > best, index_here", "best_here >= best, index_here"),
            ("ops.argmax(iou ==", "ops.argmin(iou =="),
            ("ops.max(iou, axis=2, keepdims=True)", "ops.max(iou, axis=1, keepdims=True)"),
        ]
    },
    "ops/boxes.py": {
        "ops/test_boxes.py -k 'not compiled'": [
            ("ops.prod(ops.maximum", "ops.sum(ops.maximum"),
            ("ops.maximum(end - start, 0)", "ops.maximum(end - start, 1)"),
            (" - intersection\n", "\n"),
            ("ops.minimum(ops.maximum(boxes, 0), limits)", "ops.minimum(boxes, limits)"),
            ("ops.log(sizes / reference_sizes)", "ops.log(reference_sizes / sizes)"),
            ("1000.0 / 16", "1000.0 / 8"),
            ("centers = offsets * reference_sizes", "centers = offsets"),
            ("half_sizes = 0.5 *", "half_sizes = 1.0 *"),
            ("ops.maximum(a_top, b_top), 0)", "ops.maximum(a_top, b_top), 1)"),
        ]
    },
    "ops/anchors.py": {
        "ops/test_anchors.py": [
            ("size / math.sqrt(ratio) / 2", "size * math.sqrt(ratio) / 2"),
            ('indexing="ij"', 'indexing="xy"'),
            ("ops.stack([ys, xs, ys, xs]", "ops.stack([xs, ys, xs, ys]"),
        ]
    },
    "ops/nms.py": {
        "ops/test_nms.py -k 'not compiled'": [
            ("boxes) > iou_threshold", "boxes) >= iou_threshold"),
            ("rank[:, None] < rank[None, :]", "rank[:, None] <= rank[None, :]"),
            ("ops.argsort(-scores", "ops.argsort(scores"),
            ("group[:, None] == group[None, :]", "group[:, None] != group[None, :]"),
        ]
    },
    "ops/roi_align.py": {
        "ops/test_roi_align.py -k 'not compiled'": [
            ("ops.floor(4 + ops.log2", "ops.floor(5 + ops.log2"),
            ("boxes / stride - 0.5", "boxes / stride"),
            ("ops.clip(levels, 2, 5)", "ops.clip(levels, 2, 4)"),
            ("points <= last + 1)\n        counted", "points <= last)\n        counted"),
            ("ops.ceil(size / ops.cast(bins", "ops.floor(size / ops.cast(bins"),
        ]
    },
    "ops/masks.py": {
        "ops/test_masks.py -k 'not compiled'": [
            ("coverage >= 0.5", "coverage > 0.5"),
            (", start.dtype) + 0.5\n", ", start.dtype)\n"),
            ("* scale - 0.5\n    length", "* scale\n    length"),
            ("take_rows(is_mask, matched_index)", "take_rows(is_mask, 0 * matched_index)"),
        ]
    },
    "ops/panoptic_merge.py": {
        "ops/test_panoptic_merge.py -k 'not compiled'": [
            (">= score_threshold", "> score_threshold"),
            ("probs >= MASK_THRESHOLD", "probs > MASK_THRESHOLD"),
            ("overlap <= overlap_threshold", "overlap < overlap_threshold"),
            ("areas >= stuff_area", "areas > stuff_area"),
            ("ops.maximum(area, 1)", "ops.maximum(free_area, 1)"),
            ("sides(counts)[0] - from_the_end", "sides(counts)[0] - from_the_end - 1"),
            ("areas[1 : 1 + num_stuff]", "areas[:num_stuff]"),
            ("offset + count, before", "count, before"),
            (", free_area > 0)", ", free_area >= 0)"),
            ("ops.argsort(-scores)", "ops.argsort(scores)"),
        ]
    },
    "ops/canvas.py": {
        "ops/test_panoptic_merge.py -k 'not compiled'": [
            ("ops.ceil(box[2:])", "ops.floor(box[2:])"),
            ("left // RUN * RUN", "left"),
            ("ops.maximum(box, 0)", "ops.maximum(box, 1)"),
        ]
    },
    "inference/semantic_map.py": {
        "inference/test_semantic_map.py": [
            ("logits[None], 3, 1", "logits[None], 1, 1"),
            ("+ 0.5) * scale - 0.5", "+ 0.5) * scale"),
            ("lower == upper, 0.0", "lower > upper, 0.0"),
        ]
    },
    "ops/resize.py": {
        "ops/test_resize.py": [
            ("(centers + 0.5) * scale - 0.5", "(centers + 0.5) * scale"),
            ("(height * factor, width * factor)", "(height * factor, height * factor)"),
        ]
    },
    "metrics/panoptic_quality.py": {
        "metrics/test_panoptic_quality.py metrics/test_panoptic_quality_rules.py": [
            ("iou > 0.5", "iou >= 0.5"),
            ("pred_area > 0.5", "pred_area >= 0.5"),
            (" - pred_on_void[columns]", ""),
            (" & ~gt.is_crowd[:, None]", ""),
            ("gt_unmatched & ~gt.is_crowd", "gt_unmatched"),
            ("weight = tp + 0.5 * fp + 0.5 * fn", "weight = tp + 0.5 * fp + fn"),
            ("np.maximum(tp, 1)", "np.maximum(tp + fp, 1)"),
            ("(pred_on_void + pred_on_crowd)", "pred_on_void"),
            ("occurs & ~is_thing", "occurs"),
            ("np.digitize(areas, _SIZE_LIMITS)", "np.digitize(areas, _SIZE_LIMITS, right=True)"),
            ("np.flatnonzero(changes) + 1", "np.flatnonzero(changes)"),
            ("self._confusions += other._confusions", "pass"),
            ("intersection.max(axis=1) > 0", "intersection.max(axis=1) >= 0"),
        ]
    },
    "metrics/semantic_iou.py": {
        "metrics/test_semantic_iou.py": [
            ("* num_classes + pred[is_labelled]", "+ num_classes * pred[is_labelled]"),
            (" + gt - hits", " + gt"),
            ("float(iou[occurs].sum() / occurs.sum())", "float(iou.mean())"),
            ("classes.max() >= num_classes", "classes.max() > num_classes"),
            ("hits / np.where(occurs, gt, 1)", "hits / np.where(occurs, union, 1)"),
        ]
    },
    "metrics/boundary_iou.py": {
        "metrics/test_boundary_iou.py": [
            ("DILATION_RATIO = 0.02", "DILATION_RATIO = 0.03"),
            ("size = 2 * distance + 1", "size = 2 * distance"),
            (" & is_labelled)", ")"),
            ("self._area + other._area - shared", "self._area + other._area"),
            ("self._gt + self._pred - self._intersection", "self._gt + self._pred"),
        ],
        "metrics/test_coco_ap.py": [("max(second._left - first._left, 0)", "0")],
    },
    "metrics/cityscapes_iou.py": {
        "metrics/test_cityscapes_iou.py": [
            ("/ int(predicted.sum())", "/ int(predicted.max())"),
            ("- hits) * weight", "- hits)"),
            ("gt_instances > FIRST_INSTANCE_ID", "gt_instances >= 0"),
            ("hits = int(predicted[members].sum())", "hits = int(predicted.sum())"),
        ]
    },
    "metrics/cityscapes_ap.py": {
        "metrics/test_cityscapes_ap.py": [
            ("matches = iou > threshold", "matches = iou >= threshold"),
            ("areas < MIN_AREA", "areas <= MIN_AREA"),
            ("<= threshold)\n", "< threshold)\n"),
            ("best_first[1:]", "best_first[2:]"),
            ("0.5 * before - 0.5 * after", "before - after"),
        ]
    },
    "metrics/instance_ap.py": {
        "metrics/test_instance_ap.py": [
            ("[x1, y1, x2 - x1, y2 - y1]", "[y1, x1, x2 - x1, y2 - y1]"),
            (".T >= 0.5", ".T > 0.4"),
        ]
    },
    "metrics/coco_ap.py": {
        "metrics/test_coco_ap.py": [
            ("boxes[:, 2] * boxes[:, 3]", "boxes[:, 2]"),
            ("recall[:, :, size, -1]", "recall[:, :, size, 0]"),
            ('bool(a.get("iscrowd", 0))', "False"),
            ("ids.sort(", "sorted("),
        ],
    },
    "metrics/coco_curves.py": {
        "metrics/test_coco_ap.py": [
            (" + np.spacing(1)", ""),
            ("ranks < best", "ranks <= best"),
            ("np.maximum.accumulate(precision[::-1])[::-1]", "precision"),
            ("counts & is_found", "is_found"),
        ],
    },
    "metrics/coco_matching.py": {
        "metrics/test_coco_ap.py": [
            ("ranks < MAX_DETECTIONS", "ranks <= MAX_DETECTIONS"),
            ("iou >= best_iou[has], best_ignored", "iou > best_iou[has], best_ignored"),
            ("best_iou[has], best_ignored[has])", "best_iou[has], True)"),
            (" | gt.is_crowd[column]", " | False & gt.is_crowd[column]"),
            (" | gt.is_crowd[:, None]", ""),
            ("> threshold - _ROUNDING", "> threshold + 0.1"),
            (" & ~gt.is_crowd[columns]", ""),
            ("np.lexsort((-detections.scores", "np.lexsort((detections.scores"),
            ("gt_ignored[column, size]", "False"),
        ],
    },
    "training/log.py": {
        "training/test_log.py": [
            ("self.schedule(step - 1)", "self.schedule(step)"),
            ("rate = len(window) / elapsed", "rate = 1 / elapsed"),
            ("scalars.update({name: line[name]", "dict({name: line[name]"),
        ]
    },
    "training/checkpoint.py": {
        "training/test_checkpoint.py": [("KEPT = 3", "KEPT = 4"), ("reverse=True", "reverse=False")]
    },
    "data/geometry.py": {
        "data/test_geometry.py": [
            ("draws = (0.0, 1.0)", "draws = (0.0,)"),
            ("sides = range(min(sides), max(sides) + 1)", "pass"),
            ("tf.maximum(last, resize_point(self.window[2:] - 1, *sizes)) + 1", "last + 1"),
            ("tf.minimum(first, resize_point(self.window[:2], *sizes))", "first"),
        ]
    },
    "data/augment.py": {
        "data/test_augment.py -k 'donated or share'": [
            ("(chances < 0.5)", "(chances < 0.9)"),
            ("is_drawn &= draws[10] < settings.crop_by_class_probability", "pass"),
        ]
    },
    "evaluation/evaluate_run.py": {
        "evaluation/test_evaluate_run.py -k best_median": [
            ("(len(ranked) - GALLERY_IMAGES) // 2", "(len(ranked) - GALLERY_IMAGES) // 3"),
        ]
    },
    "data/class_shares.py": {
        "evaluation/test_evaluate_run.py -k shares_are": [
            ("if all(segment.area for segment in record.segments):", "if record.segments:"),
        ]
    },
}


def run_tests(folder, tests):
    """True if all pass, within TIME_LIMIT."""
    files, _, expression = tests.partition(" -k ")
    files = [str(folder / "tests" / name) for name in files.split()]
    arguments = ["-x", "-q", "-n", "0", *files, "-k", expression.strip("'")]
    # Forked, so that TensorFlow is imported once.
    child = os.fork()
    if child == 0:
        signal.alarm(TIME_LIMIT)
        if all("metrics/" in name for name in files):
            os.environ["KERAS_BACKEND"] = "numpy"  # sets no TensorFlow up
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(folder / "tests")]
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os._exit(pytest.main(arguments))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return False
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        text = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"{tests}: pytest ended with {status}\n{text[-2000:]}")
    return status == 0


def main(words):
    """Runs the chosen mutants; returns the number of survivors."""
    chosen = [
        (name, tests, old, new)
        for name, by_tests in MUTANTS.items()
        for tests, changes in by_tests.items()
        for old, new in changes
        if not words or any(word in f"{name} {old}" for word in words)
    ]
    sources = {name: (ROOT / PACKAGE / name).read_text(encoding="utf-8") for name in MUTANTS}
    absent = [f"{name}: {old!r}" for name, _, old, _ in chosen if old not in sources[name]]
    if absent:
        raise SystemExit("no longer in the code:\n" + "\n".join(absent))
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for part in (PACKAGE, "tests", "configs"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for tests in dict.fromkeys(tests for _, tests, _, _ in chosen):
            if not run_tests(folder, tests):
                raise SystemExit(f"{tests}: fails without any change")
        for name, tests, old, new in chosen:
            path = folder / PACKAGE / name
            path.write_text(sources[name].replace(old, new, 1), encoding="utf-8")
            survived = run_tests(folder, tests)
            path.write_text(sources[name], encoding="utf-8")
            survivors += survived
            verdict = "SURVIVED" if survived else "killed"
            print(f"{verdict}\t{name}\t{old!r} -> {new!r}", flush=True)
    killed = len(chosen) - survivors
    print(f"{killed} of {len(chosen)} killed, {100 * killed / len(chosen):.0f} %")
    return survivors


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
