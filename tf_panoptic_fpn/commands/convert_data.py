"""`convert-data`: makes a COCO panoptic data set from other annotations."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.convert.coco_instances import read_coco_instances
from tf_panoptic_fpn.convert.datumaro_bridge import read_datumaro
from tf_panoptic_fpn.convert.labelme import read_labelme
from tf_panoptic_fpn.convert.png_pairs import read_png_pairs
from tf_panoptic_fpn.convert.recognise import recognise
from tf_panoptic_fpn.convert.roboflow import read_roboflow
from tf_panoptic_fpn.convert.source import Source, declare_stuff
from tf_panoptic_fpn.convert.voc import read_voc
from tf_panoptic_fpn.convert.writer import IMAGE_FILES, NO_VALIDATION, Conversion, write_panoptic
from tf_panoptic_fpn.convert.yolo import read_yolo
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.messages import plural, printable

SUMMARY = "make a COCO panoptic data set from other annotations"

# Source: its reader and the arguments that it takes.
SOURCES: dict[str, tuple[Callable[..., Source], tuple[str, ...]]] = {
    "coco": (read_coco_instances, ("images", "instances_json")),
    "datumaro": (read_datumaro, ("input",)),
    "labelme": (read_labelme, ("input",)),
    "png-pairs": (read_png_pairs, ("images", "semantic_dir", "instance_dir")),
    "roboflow": (read_roboflow, ("input",)),
    "voc": (read_voc, ("input",)),
    "yolo": (read_yolo, ("input",)),
}
_SHOWN = 10
_PART = "a part is left out"  # the rest of the mask is kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", choices=sorted(SOURCES), help="found by the layout of --input")
    parser.add_argument("--output", required=True, help="new folder to write")
    parser.add_argument("--input", help="folder of the data set, e.g. VOC2012 or LabelMe's files")
    parser.add_argument("--images", help="coco, png-pairs: folder of the images")
    parser.add_argument("--instances-json", help="coco: the annotations")
    parser.add_argument("--semantic-dir", help="png-pairs: folder of the maps of classes")
    parser.add_argument("--instance-dir", help="png-pairs: folder of the maps of instances")
    parser.add_argument("--categories", help="JSON list of id, name, isthing (png-pairs: needed)")
    parser.add_argument(
        "--stuff", action="append", default=[], metavar="NAME", help="a category that is stuff"
    )
    parser.add_argument("--background", metavar="NAME", help="the stuff where nothing is annotated")
    parser.add_argument("--void", action="append", type=int, metavar="VALUE", help="png-pairs: 255")
    parser.add_argument("--format", help="datumaro: its name of the format, e.g. cvat")
    parser.add_argument("--names", help="text file: the images to take, one name a line")
    parser.add_argument("--validation-share", type=float, default=0.0, metavar="SHARE")
    parser.add_argument(
        "--recipe", help="a configuration, e.g. finetune: config.yaml has its settings too"
    )
    parser.add_argument("--image-files", choices=IMAGE_FILES, default="link")


def run(arguments: argparse.Namespace) -> None:
    source = _read_source(arguments)
    if not 0 <= arguments.validation_share < 1:
        received = arguments.validation_share
        raise ConfigError(f"--validation-share must be in [0, 1). Received: {received}")
    categories = declare_stuff(source.categories, arguments.stuff, arguments.background)
    source = dataclasses.replace(source, categories=categories)
    if arguments.names:
        source = _only_named(source, arguments.names)
    conversion = write_panoptic(
        source,
        arguments.output,
        arguments.image_files,
        arguments.validation_share,
        arguments.background,
        arguments.recipe,
    )
    _print_summary(conversion, categories, arguments.output)


def _read_source(arguments: argparse.Namespace) -> Source:
    name = arguments.source or _recognised(arguments.input)
    read, needed = SOURCES[name]
    inputs = sorted({name for _, names in SOURCES.values() for name in names})
    given = {name for name in inputs if getattr(arguments, name) is not None}
    if given != set(needed):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in needed)
        received = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given)) or "none"
        raise ConfigError(f"--source={name} takes {flags}. Received: {received}")
    for flag, source in (("void", "png-pairs"), ("format", "datumaro")):
        if getattr(arguments, flag) is not None and name != source:
            raise ConfigError(f"--source={name} does not take --{flag}")
    paths = [getattr(arguments, name) for name in needed]
    categories = CategoryTable.load(arguments.categories, None) if arguments.categories else None
    if name == "datumaro":
        return read(*paths, categories, arguments.format)
    if name != "png-pairs":
        return read(*paths, categories)
    if categories is None:
        raise ConfigError("--source=png-pairs takes --categories as well")
    return read(*paths, categories, (255,) if arguments.void is None else tuple(arguments.void))


def _recognised(folder: str | None) -> str:
    if folder is None:
        raise ConfigError("Either --input, a folder, or --source must be given")
    source = recognise(folder)
    print(f"{folder}: --source={source}")
    return source


def _only_named(source: Source, names_file: str) -> Source:
    """The images whose name or stem is in a text file."""
    try:
        lines = pathlib.Path(names_file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{names_file}: cannot be read: {error}") from None
    wanted = {line.strip().replace("\\", "/").removeprefix("./") for line in lines if line.strip()}
    if not wanted:
        raise ConfigError(f"{names_file}: must name an image. Received: an empty file")
    images, found = [], set()
    for image in source.images:
        path = pathlib.PurePath(image.file_name)
        own = {path.as_posix(), path.with_suffix("").as_posix()}
        # VOC's lists have a number behind the name.
        names = {name for name in wanted if name in own or name.split()[0] in own}
        if names:
            images.append(image)
            found |= names
    if wanted - found:
        missing = sorted(wanted - found)
        raise ConfigError(
            f"{names_file}: {len(missing)} of {len(wanted)} names are no annotated image: "
            f"{', '.join(missing[:5])}"
        )
    return dataclasses.replace(source, images=tuple(images))


def _print_summary(conversion: Conversion, categories: CategoryTable, output: str) -> None:
    for note in conversion.notes:
        print(printable(note))
    print(
        f"{plural(sum(conversion.num_images.values()), 'image')}, "
        f"{plural(conversion.num_segments, 'segment')}, "
        f"{len(categories.things)} thing and {len(categories.stuff)} stuff categories"
    )
    _print_left_out("image", list(conversion.images_left_out.items()))
    annotations = conversion.annotations_left_out.items()
    pairs = [(name, reason) for name, reasons in annotations for reason in reasons]
    parts = [pair for pair in pairs if _PART in pair[1]]
    _print_left_out("annotation", [pair for pair in pairs if pair not in parts])
    _print_left_out("part of a mask", parts)
    for name, count in conversion.num_images.items():
        print(f"{pathlib.Path(output) / name}: {plural(count, 'image')}")
    print(f"{pathlib.Path(output) / 'config.yaml'}: the model's classes and the paths")
    if len(conversion.num_images) == 1:
        print(f"  {NO_VALIDATION}")


def _print_left_out(what: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Prints the first of the pairs of file name and reason."""
    if pairs:
        noun, _, rest = what.partition(" ")
        print(" ".join(filter(None, (plural(len(pairs), noun), rest, "left out:"))))
    for name, reason in pairs[:_SHOWN]:
        print(printable(f"  {name}: {reason}"))
    if len(pairs) > _SHOWN:
        print(f"  and {len(pairs) - _SHOWN} more, see conversion.json")
