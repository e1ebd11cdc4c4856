"""`convert-data`: makes a COCO panoptic data set from other annotations."""

import dataclasses
import pathlib

from tf_panoptic_fpn.datatools.convert.coco_instances import read_coco_instances
from tf_panoptic_fpn.datatools.convert.labelme import read_labelme
from tf_panoptic_fpn.datatools.convert.png_pairs import read_png_pairs
from tf_panoptic_fpn.datatools.convert.source import declare_stuff, read_categories
from tf_panoptic_fpn.datatools.convert.voc import read_voc
from tf_panoptic_fpn.datatools.convert.writer import IMAGE_FILES, write_panoptic
from tf_panoptic_fpn.errors import ConfigError

SUMMARY = "make a COCO panoptic data set from other annotations"

# Source: its reader and the arguments that it takes.
SOURCES = {
    "coco": (read_coco_instances, ("images", "instances_json")),
    "labelme": (read_labelme, ("input",)),
    "voc": (read_voc, ("input",)),
    "png-pairs": (read_png_pairs, ("images", "semantic_dir", "instance_dir")),
}
_SHOWN = 10


def add_arguments(parser):
    parser.add_argument("--source", required=True, choices=sorted(SOURCES))
    parser.add_argument("--output", required=True, help="new folder to write")
    parser.add_argument("--input", help="labelme: folder of JSON files; voc: e.g. VOC2012")
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
    parser.add_argument("--names", help="text file: the images to take, one name a line")
    parser.add_argument("--validation-share", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--image-files", choices=IMAGE_FILES, default="link")


def run(arguments):
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
    )
    _print_summary(conversion, categories, arguments.output)


def _read_source(arguments):
    read, needed = SOURCES[arguments.source]
    inputs = sorted({name for _, names in SOURCES.values() for name in names})
    given = {name for name in inputs if getattr(arguments, name) is not None}
    if given != set(needed):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in needed)
        received = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given)) or "none"
        raise ConfigError(f"--source={arguments.source} takes {flags}. Received: {received}")
    paths = [getattr(arguments, name) for name in needed]
    categories = read_categories(arguments.categories) if arguments.categories else None
    if arguments.source != "png-pairs":
        if arguments.void is not None:
            raise ConfigError(f"--source={arguments.source} does not take --void")
        return read(*paths, categories)
    if categories is None:
        raise ConfigError("--source=png-pairs takes --categories as well")
    return read(*paths, categories, (255,) if arguments.void is None else tuple(arguments.void))


def _only_named(source, names_file):
    """The images whose name or stem is in a text file."""
    try:
        lines = pathlib.Path(names_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{names_file}: cannot be read: {error}") from None
    wanted = {line.split()[0] for line in lines if line.strip()}
    images, found = [], set()
    for image in source.images:
        path = pathlib.PurePath(image.file_name)
        names = wanted & {path.as_posix(), path.with_suffix("").as_posix()}
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


def _print_summary(conversion, categories, output):
    print(
        f"{sum(conversion.num_images.values())} images, {conversion.num_segments} segments, "
        f"{len(categories.things)} thing and {len(categories.stuff)} stuff categories"
    )
    _print_left_out("images", list(conversion.images_left_out.items()))
    annotations = conversion.annotations_left_out.items()
    pairs = [(name, reason) for name, reasons in annotations for reason in reasons]
    _print_left_out("annotations", pairs)
    for name, count in conversion.num_images.items():
        print(f"{pathlib.Path(output) / name}: {count} images")
    print(f"{pathlib.Path(output) / 'config.yaml'}: the model's classes and the paths")


def _print_left_out(what, pairs):
    """Prints the first of the pairs of file name and reason; a name may hold anything."""
    if pairs:
        print(f"{len(pairs)} {what} left out:")
    for name, reason in pairs[:_SHOWN]:
        print("".join(c if c.isprintable() else "?" for c in f"  {name}: {reason}"))
    if len(pairs) > _SHOWN:
        print(f"  and {len(pairs) - _SHOWN} more, see conversion.json")
