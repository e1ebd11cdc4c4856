"""`instance-ap`: scores COCO instance results."""

import argparse
import collections
import sys
from collections.abc import Iterable, Mapping
from typing import Any

SUMMARY = "box, mask or boundary AP of COCO instance results"
IOU_TYPES = ("bbox", "segm", "boundary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gt-json", required=True, help="COCO instance file of the ground truth")
    parser.add_argument("--results", required=True, help="COCO results, a JSON list")
    parser.add_argument("--iou-type", choices=IOU_TYPES, default="segm")
    parser.add_argument("--json", metavar="OUT", help="file for the figures in full precision")


def run(arguments: argparse.Namespace) -> None:
    from tf_panoptic_fpn.evaluation.instance_files import (
        count_doubled,
        read_ground_truth,
        read_results,
    )
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file, format_figures, number_of
    from tf_panoptic_fpn.metrics.coco_ap import METRICS, SIZE_RECALLS, coco_ap
    from tf_panoptic_fpn.metrics.coco_matching import MAX_DETECTIONS
    from tf_panoptic_fpn.metrics.instance_ap import FIGURES

    iou_type = arguments.iou_type
    needs_masks = iou_type != "bbox"
    ground_truth = read_ground_truth(arguments.gt_json, needs_masks)
    results = read_results(arguments.results, ground_truth, needs_masks)
    _warn_of_crowded_images(results, MAX_DETECTIONS)
    figures = coco_ap(ground_truth, results, iou_type)
    num_images = len(ground_truth["images"])
    num_found = len({result["image_id"] for result in results})
    figures |= {
        "images": num_images,
        "images_without_results": num_images - num_found,
        "doubled_results": count_doubled(results),
    }
    with figures_file(figures, arguments.json):
        for names in (METRICS, SIZE_RECALLS):
            print(
                format_figures(FIGURES[iou_type], {"All": {name: figures[name] for name in names}})
            )
            print()
        per_class = figures["per_class"]
        print(format_figures("Class", {name: {"AP": ap} for name, ap in per_class.items()}))
        print(
            f"\n{number_of(num_images, 'image')}, {num_images - num_found} of them without a result"
        )
        if figures["doubled_results"]:
            print(f"{figures['doubled_results']} results repeat another one in full, as false ones")


def _warn_of_crowded_images(results: Iterable[Mapping[str, Any]], limit: int) -> None:
    """COCO's AP takes the best results of each image and category, and leaves the others out."""
    counts = collections.Counter((r["image_id"], r["category_id"]) for r in results)
    over = {key: count for key, count in counts.items() if count > limit}
    if over:
        (image_id, category_id), most = max(over.items(), key=lambda item: item[1])
        left_out = sum(over.values()) - limit * len(over)
        print(
            f"warning: {left_out} results do not count: COCO's figures take the {limit} best of an "
            f"image and category, and image {image_id} has {most} of category {category_id}",
            file=sys.stderr,
        )
