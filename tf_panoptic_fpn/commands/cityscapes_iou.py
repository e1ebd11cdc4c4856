"""`cityscapes-iou`: scores semantic results in the layout of Cityscapes."""

import argparse

SUMMARY = "IoU and iIoU of Cityscapes semantic results"
LABELS, INSTANCES = "_labelIds.png", "_instanceIds.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gt-dir", required=True, help=f"folder of *{LABELS} and *{INSTANCES}, e.g. gtFine/val"
    )
    parser.add_argument("--pred-dir", required=True, help="folder of CITY_SEQUENCE_FRAME*.png")
    parser.add_argument("--json", metavar="OUT", help="file for the figures in full precision")


def run(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from tf_panoptic_fpn.evaluation.file_pairs import pair_cityscapes
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file, format_figures
    from tf_panoptic_fpn.formats.images import read_label_map
    from tf_panoptic_fpn.metrics.cityscapes_iou import CityscapesIoU

    metric = CityscapesIoU()
    pairs = pair_cityscapes(arguments.gt_dir, arguments.pred_dir, LABELS, ".png")
    for gt_path, pred_path in tqdm(pairs, "cityscapes-iou", unit="image"):
        instances_path = gt_path.with_name(gt_path.name.replace(LABELS, INSTANCES))
        gt, instances, pred = map(read_label_map, (gt_path, instances_path, pred_path))
        metric.update(gt, instances, pred, image=str(pred_path))
    result = metric.result()
    with figures_file(result, arguments.json):
        for title, group in (("Class", "classes"), ("Category", "categories")):
            rows = {**result[f"per_{title.lower()}"], "Mean": result[group]}
            print(format_figures(title, rows), end="\n\n")
