"""`convert-cityscapes`: writes Cityscapes in COCO's panoptic format."""

import argparse
import pathlib

from tf_panoptic_fpn.errors import DataError

SUMMARY = "write Cityscapes in COCO's panoptic format"
_SPLITS = ("train", "val")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", required=True, help="folder of leftImg8bit/ and gtFine/")
    parser.add_argument("--splits", nargs="+", metavar="NAME", help="by default train and val")
    parser.add_argument("--output", help="folder to write to, by default gtFine/")


def run(arguments: argparse.Namespace) -> None:
    """Converts the splits; one that is done already, by a run that went no further, stays."""
    from tf_panoptic_fpn.convert.cityscapes import convert_cityscapes

    root = pathlib.Path(arguments.root)
    output = pathlib.Path(arguments.output or root / "gtFine")
    absent = [s for s in arguments.splits or _SPLITS if not (root / "leftImg8bit" / s).is_dir()]
    splits = [s for s in arguments.splits or _SPLITS if s not in absent]
    if absent and (arguments.splits or not splits):
        raise DataError(f"{root / 'leftImg8bit' / absent[0]}: no such folder")
    for name in absent:
        print(f"{name}: left out, there is no {root / 'leftImg8bit' / name}")
    for name in splits:
        target = output / f"cityscapes_panoptic_{name}"
        if pathlib.Path(f"{target}.json").exists():
            print(f"{target}.json: exists already, left as it is")
            continue
        convert_cityscapes(
            root / "leftImg8bit" / name, root / "gtFine" / name, f"{target}.json", target
        )
        print(f"{target}.json")
