"""`semantic-iou`: scores semantic label maps."""

import argparse

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.schema import VOID_LABEL

SUMMARY = "IoU and accuracy of semantic label maps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gt-dir", required=True, help="folder of PNGs, category id of each pixel")
    parser.add_argument("--pred-dir", required=True, help="folder of PNGs of the same names")
    parser.add_argument(
        "--categories", required=True, help="COCO JSON with `categories`, or a list of them"
    )
    parser.add_argument(
        "--ignored",
        type=int,
        nargs="*",
        help="values of the ground truth that do not count (default 255, unless a category has it)",
    )
    parser.add_argument("--boundary", action="store_true", help="boundary IoU, too")
    parser.add_argument("--json", metavar="OUT", help="file for the figures in full precision")


def run(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from tf_panoptic_fpn.categories import CategoryTable
    from tf_panoptic_fpn.evaluation import semantic_files
    from tf_panoptic_fpn.evaluation.file_pairs import pair_by_path
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file, format_figures
    from tf_panoptic_fpn.metrics.boundary_iou import BoundaryIoU
    from tf_panoptic_fpn.metrics.semantic_iou import SemanticIoU

    table = CategoryTable.load(arguments.categories)
    category_ids, names = list(table.unique_names), list(table.unique_names.values())
    ignored = set(arguments.ignored or ())
    if arguments.ignored is None:
        ignored = {VOID_LABEL} - set(category_ids)
    both = set(category_ids) & ignored
    if both:
        raise DataError(
            f"--ignored must name no category of {arguments.categories}. Received: {both}"
        )
    metrics: list[SemanticIoU | BoundaryIoU] = [SemanticIoU(names, semantic_files.IGNORED)]
    if arguments.boundary:
        metrics.append(BoundaryIoU(names, semantic_files.IGNORED))
    pairs = pair_by_path(arguments.gt_dir, arguments.pred_dir)
    for gt_path, pred_path in tqdm(pairs, "semantic-iou", unit="image"):
        gt, pred = semantic_files.read_semantic_pair(gt_path, pred_path, category_ids, ignored)
        for metric in metrics:
            metric.update(gt, pred, image=str(pred_path))
    result = metrics[0].result()
    figures = {key: value for key, value in result.items() if key != "per_class"}
    rows = {name: {"IoU": value} for name, value in result["per_class"].items()}
    if arguments.boundary:
        result["boundary"] = boundary = metrics[1].result()
        figures["boundary_mIoU"] = boundary["boundary_mIoU"]
        for name, value in boundary["per_class"].items():
            rows[name]["boundary IoU"] = value
    with figures_file(result, arguments.json):
        print(format_figures("Semantic", {"All": figures}), end="\n\n")
        print(format_figures("Class", rows))
