"""`collect-predictions`: COCO's result files from what `predict-beam` wrote."""

import argparse

from tf_panoptic_fpn.commands.import_beam import import_beam

SUMMARY = "write COCO's result files from the predictions of predict-beam"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", metavar="FOLDER", help="the --output of predict-beam")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument(
        "--gt-json", help="COCO file whose images have the ids; by default they are 1, 2, ..."
    )


def run(arguments: argparse.Namespace) -> None:
    import_beam()
    from tf_panoptic_fpn.batch.collect import collect_coco
    from tf_panoptic_fpn.batch.shards import open_shards

    count = collect_coco(open_shards(arguments.predictions), arguments.output, arguments.gt_json)
    print(f"{arguments.output}: {count} images")
