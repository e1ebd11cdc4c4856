"""`analyze`: counts what a model costs, stage by stage, or the networks of the paper."""

import argparse

from tf_panoptic_fpn.commands.quiet_tensorflow import import_tensorflow
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "parameters, multiply-adds and activations of a model, or of the paper's networks"
UNITS = ((1e6, "M parameters"), (1e9, "G multiply-adds"), (1e6, "M activations"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="YAML file, or the name of a recipe")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument(
        "--image-size", metavar="H,W", default="800,1216", help="pixels (default %(default)s)"
    )
    parser.add_argument(
        "--paper", action="store_true", help="the networks of the paper's Table 1a and Figure 5"
    )
    parser.add_argument("--plot", metavar="OUT", help="picture of Figure 5; with --paper")
    parser.add_argument("--json", metavar="OUT", help="file for the figures")


def run(arguments: argparse.Namespace) -> None:
    if arguments.paper == bool(arguments.config):
        raise ConfigError("Either --config or --paper must be given")
    if arguments.plot and not arguments.paper:
        raise ConfigError("--plot needs --paper")
    import_tensorflow()
    (_paper if arguments.paper else _model)(arguments)


def _model(arguments: argparse.Namespace) -> None:
    import dataclasses

    from tf_panoptic_fpn.analysis.costs import count_costs
    from tf_panoptic_fpn.config import load_config
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file
    from tf_panoptic_fpn.models.build_model import build_model

    config = load_config(arguments.config, arguments.set)
    stages = count_costs(build_model(config.model), _image_size(arguments.image_size))
    result = {stage: dataclasses.asdict(costs) for stage, costs in stages.items()}
    with figures_file(result, arguments.json):
        width = max(map(len, stages))
        print("  ".join(["stage".ljust(width), *(name for _, name in UNITS)]))
        for stage, costs in stages.items():
            pairs = zip(dataclasses.astuple(costs), UNITS, strict=True)
            cells = (f"{value / unit:.2f}".rjust(len(name)) for value, (unit, name) in pairs)
            print("  ".join([stage.ljust(width), *cells]))


def _paper(arguments: argparse.Namespace) -> None:
    import dataclasses

    from tf_panoptic_fpn.analysis.paper import figure_5, plot, table_1a
    from tf_panoptic_fpn.evaluation.metric_tables import figures_file

    architectures = figure_5()
    if arguments.plot:
        try:
            plot(architectures, arguments.plot)
        except ModuleNotFoundError:
            raise ConfigError(
                "--plot needs matplotlib: pip install tf-panoptic-fpn[plots]"
            ) from None
    rows = [*table_1a(), *architectures]
    with figures_file({"rows": [dataclasses.asdict(row) for row in rows]}, arguments.json):
        width = max(len(row.name) for row in rows)
        print(f"{'1024 x 2048'.ljust(width)}  T multiply-adds  G activations  printed")
        for row in rows:
            cells = f"{row.costs.multiply_adds / 1e12:15.3f}  {row.costs.activations / 1e9:13.3f}"
            printed = "-" if row.printed is None else "{} and {}".format(*row.printed)
            print(f"{row.name.ljust(width)}  {cells}  {printed}")


def _image_size(text: str) -> tuple[int, int]:
    try:
        height, width = map(int, text.split(","))
    except ValueError:
        raise ConfigError(f"--image-size must be H,W. Received: {text!r}") from None
    return height, width
