"""`python -m tf_panoptic_fpn write-records`: a split as TFRecord shards."""

import argparse

from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "write a split as TFRecord shards, for `data.train.records`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument("--split", default="train", choices=("train", "validation"))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder, or a remote path")
    parser.add_argument("--shards", type=int, default=16, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")


def run(arguments: argparse.Namespace) -> None:
    if arguments.shards < 1:
        raise ConfigError(f"--shards must be 1 or above. Received: {arguments.shards}")
    import_tensorflow()
    from tf_panoptic_fpn.config import load_config
    from tf_panoptic_fpn.data.splits import load_index
    from tf_panoptic_fpn.data.tfrecords import write_records
    from tf_panoptic_fpn.evaluation.metric_tables import number_of

    config = load_config(arguments.config, arguments.set)
    getattr(config.data, arguments.split).check_paths(arguments.split)
    index = load_index(config.data, arguments.split, config.model.semantic_things)
    count = write_records(index, arguments.output, arguments.shards)
    images, shards = number_of(len(index), "image"), number_of(count, "shard")
    print(f"{images} in {shards}: {arguments.output}")
