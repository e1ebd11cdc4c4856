"""Writes annotated images as a COCO panoptic data set."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import yaml

from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.config.recipes import find_config
from tf_panoptic_fpn.convert.painting import fill_background
from tf_panoptic_fpn.convert.source import SizeError, Source
from tf_panoptic_fpn.datatools.threads import map_in_threads
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.images import read_header, read_image
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png

IMAGE_FILES = ("link", "copy", "reference")
SPLITS = ("train", "validation", "test")
SIZES = ("short_sides", "max_long_side", "flip_probability")  # of a split
NO_VALIDATION = "validation: the training images; --validation-share=0.1 sets a tenth aside"


@dataclasses.dataclass
class Conversion:
    """What `write_panoptic` did; what is left out is a dict of file name to reasons.

    `notes` are those of the `Source`.
    """

    num_images: dict[str, int] = dataclasses.field(default_factory=dict)  # by split
    num_segments: int = 0
    images_left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    annotations_left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_panoptic(
    source: Source,
    output: str | os.PathLike,
    image_files: str = "link",
    validation_share: float = 0.0,
    background: str | None = None,
    recipe: str | None = None,
) -> Conversion:
    """Writes a `Source` in the COCO panoptic format.

    `output` gets `panoptic/*.png`, `panoptic.json` (with a validation share `panoptic_train.json`
    and `panoptic_validation.json`), `images/`, `config.yaml` with the model's classes and the
    paths, and `conversion.json`, which names all that was left out. The folder appears when all of
    it is written.

    Args:
        source: what is annotated.
        output: folder, which must not exist or be empty.
        image_files: "link" for symbolic links to the images, "copy", or "reference" to leave them
            where they are: then there is no `images/`.
        validation_share: in [0, 1), the share of the images that become the validation
            split, drawn by a hash of their names. Not for a source that has splits.
        background: name of the stuff category that takes what is not annotated; void without.
        recipe: a configuration, or the name of a shipped one, that `config.yaml` has the rest of.

    Raises:
        ConfigError: if `output` is not empty or cannot be written, the source has splits and a
            share is asked for, or the recipe is none.
        DataError: if no image can be used.
    """
    output = pathlib.Path(output).absolute()
    settings = _settings_of(recipe) if recipe else {}
    own = {image.split for image in source.images}
    if validation_share and len(own) > 1:
        names = sorted(map(str, own))
        raise ConfigError(f"--validation-share: the data has splits of its own, {names}")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ConfigError(f"{output}: the output must be a new or an empty folder")
    partial = output.with_name(f".{output.name}.partial")  # of a run that was killed, if any
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        conversion, config = _write(
            source, partial, output, image_files, validation_share, background
        )
        _write_config(partial / "config.yaml", config, settings)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{output}: cannot be written: {error}") from None
        raise
    return conversion


def _write(source, partial, output, image_files, validation_share, background):
    by_name = {category.name: category.id for category in source.categories.categories}
    background_id = None if background is None else by_name[background]
    conversion = Conversion(
        images_left_out=dict(source.left_out),
        annotations_left_out=dict(source.annotations_left_out),
        notes=source.notes,
    )
    images, names = [], set()
    for image in source.images:
        if image.file_name in names:
            conversion.images_left_out[f"{image.file_name} (again)"] = "the file is listed twice"
        else:
            images.append(image)
            names.add(image.file_name)
    png_names = _png_names(images)
    done = []

    def convert(image):
        try:
            return _convert_image(
                image, source, partial, png_names[image.file_name], image_files, background_id
            )
        except DataError as error:
            return error

    results = map_in_threads(convert, images, "convert")
    for image, result in zip(images, results, strict=True):
        if isinstance(result, DataError):
            conversion.images_left_out[image.file_name] = str(result)
            continue
        image_entry, annotation, left_out = result
        if left_out:
            conversion.annotations_left_out[image.file_name] = list(left_out)
        if annotation["segments_info"]:
            done.append((image.split, image_entry, annotation))
            conversion.num_segments += len(annotation["segments_info"])
        else:
            conversion.images_left_out[image.file_name] = _nothing(left_out)
    if not done:
        raise DataError(_no_image(conversion))
    images_dir = "images" if image_files != "reference" else os.path.abspath(source.images_dir)
    splits = _splits(done, validation_share)
    for file_name, entries in splits.items():
        conversion.num_images[file_name] = len(entries)
        tree = {
            "images": [image for _, image, _ in entries],
            "annotations": [annotation for *_, annotation in entries],
            "categories": source.categories.to_coco(),
        }
        (partial / file_name).write_text(json.dumps(tree), encoding="utf-8")
    config = _config_of(output, source.categories, images_dir, list(splits))
    report = json.dumps(dataclasses.asdict(conversion), indent=1)
    (partial / "conversion.json").write_text(report, encoding="utf-8")
    return conversion, config


def _nothing(left_out):
    """Why an image has no segment, with the first of its annotations."""
    if not left_out:
        return "nothing is annotated"
    more = f" (and {len(left_out) - 1} more left out)" if len(left_out) > 1 else ""
    return f"nothing is annotated: {left_out[0]}{more}"


def _no_image(conversion):
    """Why no image can be used, by the first one."""
    for name, reason in conversion.images_left_out.items():
        return f"{name}: {reason} (and no other image can be used)"
    for name, reasons in conversion.annotations_left_out.items():
        return f"{name}: {reasons[0]} (and no image is listed)"
    return "no image is listed"


def _convert_image(image, source, folder, png_name, image_files, background_id):
    """Writes the files of one image; returns its entries in the JSON and what is left out."""
    _check_name(image.file_name)
    place = folder / "images" / image.file_name
    image_path = os.path.join(source.images_dir, image.file_name)
    if image.read_bytes is not None:
        if image_files == "reference":
            raise DataError("the image is in its JSON; --image-files=link or copy writes it out")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image.read_bytes())
        image_path = place
    try:
        size = read_image(image_path).shape[:2]
        drawing = image.draw(size, source.categories)
        if background_id is not None:
            drawing = fill_background(drawing, background_id)
    except DataError as error:
        if image.read_bytes is not None:
            place.unlink()
        raise _with_orientation(error, image_path) from None
    if drawing.segments:
        png_path = folder / "panoptic" / png_name
        png_path.parent.mkdir(parents=True, exist_ok=True)
        write_panoptic_png(drawing.ids, png_path)
        _place_image(place, image_path, image_files)
    entry = {
        "id": image.image_id,
        "file_name": pathlib.PurePath(image.file_name).as_posix(),
        "height": size[0],
        "width": size[1],
    }
    annotation = {
        "image_id": image.image_id,
        "file_name": pathlib.PurePath(png_name).as_posix(),
        "segments_info": drawing.segments_info(),
    }
    return entry, annotation, drawing.left_out


def _place_image(place, image_path, image_files):
    if image_files == "reference" or image_path == place:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if image_files == "link":
        place.symlink_to(os.path.abspath(image_path))
    else:
        shutil.copyfile(image_path, place)


def _with_orientation(error, image_path):
    """The error, said to come from the image's EXIF orientation where it does."""
    if isinstance(error, SizeError) and os.path.isfile(image_path):
        header = read_header(image_path)
        if header.orientation >= 5:
            return DataError(f"{error}, upright by its EXIF orientation {header.orientation}")
    return error


def _check_name(file_name):
    """A name must not lead out of the folder that it is written to."""
    path = pathlib.PurePath(file_name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise DataError(f"the file name must be a path below the folder. Received: {file_name!r}")


def _png_names(images):
    """Dict: file name of an image -> file name of its map; images may differ in extension only."""
    stems = [os.path.splitext(image.file_name)[0] for image in images]
    seen = set()
    doubled = {stem for stem in stems if stem in seen or seen.add(stem)}
    return {
        image.file_name: f"{image.file_name if stem in doubled else stem}.png"
        for image, stem in zip(images, stems, strict=True)
    }


def _splits(done, validation_share):
    """Dict: JSON file -> split, image and annotation of its images, in their order.

    Where others have a split, an image without one is for training.
    """
    if len({split for split, *_ in done}) > 1:
        by_split = {name: [e for e in done if (e[0] or "train") == name] for name in SPLITS}
        return {f"panoptic_{name}.json": entries for name, entries in by_split.items() if entries}
    if not validation_share:
        return {"panoptic.json": done}

    def digest(i):
        return hashlib.sha256(done[i][1]["file_name"].encode()).digest()

    count = min(max(round(validation_share * len(done)), 1), len(done) - 1)
    chosen = set(sorted(range(len(done)), key=digest)[:count])
    if not chosen:
        raise DataError("a validation split takes 2 images or more. Received: 1")
    return {
        "panoptic_train.json": [entry for i, entry in enumerate(done) if i not in chosen],
        "panoptic_validation.json": [entry for i, entry in enumerate(done) if i in chosen],
    }


def _config_of(root, categories, images_dir, json_names):
    """The classes of the model and the paths, as a configuration."""
    things, stuff = len(categories.things), len(categories.stuff)
    tasks = [task for task, count in (("instance", things), ("semantic", stuff)) if count]
    # Every command needs a validation split; what comes second is the nearest to one.
    by_split = {"train": json_names[0], "validation": json_names[:2][-1]}
    return {
        "model": {"num_thing_classes": things, "num_stuff_classes": stuff, "tasks": tasks},
        "data": {
            "root": str(root),
            **{
                name: {"images": images_dir, "panoptic_json": json_name, "panoptic_dir": "panoptic"}
                for name, json_name in by_split.items()
            },
        },
    }


def _settings_of(recipe):
    """A recipe without its data: the images of its splits are resized as it says."""
    load_config(recipe)  # all that is wrong with it
    tree = yaml.safe_load(find_config(recipe).read_text(encoding="utf-8-sig")) or {}
    data = tree.get("data") or {}
    sizes = {
        name: {key: value for key, value in (data.get(name) or {}).items() if key in SIZES}
        for name in ("train", "validation")
    }
    kept = {key: value for key, value in data.items() if key not in ("root", "source", "shapes")}
    return {**tree, "data": {**kept, **sizes}}


def _write_config(path, config, settings):
    """Writes the configuration of the data with the settings of a recipe."""
    splits = {
        name: {**split, **settings.get("data", {}).get(name, {})}
        for name, split in config["data"].items()
        if name != "root"
    }
    data = {**settings.get("data", {}), "root": config["data"]["root"], **splits}
    model = {**(settings.get("model") or {}), **config["model"]}
    config = {**settings, "model": model, "data": data}
    same = data["train"]["panoptic_json"] == data["validation"]["panoptic_json"]
    note = f"# {NO_VALIDATION}\n" if same else ""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    path.write_text(note + text, encoding="utf-8")
