"""`cityscapes-ap`: scores instance results in the layout of Cityscapes."""

import argparse

SUMMARY = "AP of Cityscapes instance results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gt-dir", required=True, help="folder of *_instanceIds.png, e.g. gtFine/val"
    )
    parser.add_argument(
        "--pred-dir", required=True, help="folder of CITY_SEQUENCE_FRAME*.txt and their masks"
    )
    parser.add_argument("--json", metavar="OUT", help="file for the figures in full precision")


def run(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from tf_panoptic_fpn.evaluation.cityscapes_results import read_instance_results
    from tf_panoptic_fpn.evaluation.file_pairs import pair_cityscapes
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file, format_figures
    from tf_panoptic_fpn.formats.images import read_label_map
    from tf_panoptic_fpn.metrics.cityscapes_ap import CityscapesAP

    metric = CityscapesAP()
    pairs = pair_cityscapes(arguments.gt_dir, arguments.pred_dir, "_instanceIds.png", ".txt")
    for gt_path, pred_path in tqdm(pairs, "cityscapes-ap", unit="image"):
        predictions = read_instance_results(pred_path, arguments.pred_dir)
        metric.update(read_label_map(gt_path), predictions, image=str(pred_path))
    result = metric.result()
    with figures_file(result, arguments.json):
        mean = {key: result[key] for key in ("AP", "AP50")}
        print(format_figures("Class", {**result["per_class"], "Mean": mean}))
