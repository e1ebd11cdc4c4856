"""`convert-cityscapes`: writes Cityscapes in COCO's panoptic format."""

import pathlib

SUMMARY = "write Cityscapes in COCO's panoptic format"


def add_arguments(parser):
    parser.add_argument("--root", required=True, help="folder of leftImg8bit/ and gtFine/")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], metavar="NAME")
    parser.add_argument("--output", help="folder to write to, by default gtFine/")


def run(arguments):
    from tf_panoptic_fpn.formats.cityscapes import convert_cityscapes

    root = pathlib.Path(arguments.root)
    output = pathlib.Path(arguments.output or root / "gtFine")
    for name in arguments.splits:
        target = output / f"cityscapes_panoptic_{name}"
        convert_cityscapes(
            root / "leftImg8bit" / name, root / "gtFine" / name, f"{target}.json", target
        )
        print(f"{target}.json")
