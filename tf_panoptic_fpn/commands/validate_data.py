"""`validate-data`: checks a data set before it is trained on."""

import argparse
import json
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from tf_panoptic_fpn.config import DataConfig, load_config
from tf_panoptic_fpn.datatools.validate.instances import validate_instances
from tf_panoptic_fpn.datatools.validate.panoptic import validate_panoptic
from tf_panoptic_fpn.datatools.validate.split import validate_split
from tf_panoptic_fpn.datatools.validate.validation import Validation
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.breaches import ERROR
from tf_panoptic_fpn.formats.images import FULL_RANGE

SUMMARY = "check a data set before it is trained on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="YAML file: both splits of its data")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--images", help="folder of the images")
    parser.add_argument("--panoptic-json", help="COCO panoptic JSON")
    parser.add_argument("--panoptic-dir", help="folder of the panoptic PNGs")
    parser.add_argument("--instances-json", help="COCO instances JSON")
    parser.add_argument("--fix", metavar="OUT.json", help="write a corrected JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints what was found; exits with status 1 if there are errors."""
    given = [
        name
        for name in ("config", "images", "panoptic_json", "panoptic_dir", "instances_json")
        if getattr(arguments, name)
    ]
    if given == ["config"]:
        if arguments.fix:
            raise ConfigError("--fix takes one split: --images and its JSON, not --config")
        validations = _validate_config(arguments.config, arguments.set)
    elif given == ["images", "panoptic_json", "panoptic_dir"]:
        paths = (arguments.images, arguments.panoptic_json, arguments.panoptic_dir)
        validations = {"": _checking(validate_panoptic, *paths)}
    elif given == ["images", "instances_json"]:
        paths = (arguments.images, arguments.instances_json)
        validations = {"": _checking(validate_instances, *paths)}
    else:
        received = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "none"
        raise ConfigError(
            "Either --config, or --images --panoptic-json --panoptic-dir, or --images "
            f"--instances-json must be given. Received: {received}"
        )
    for title, validation in validations.items():
        print("\n".join(filter(None, (title, validation.findings.table(), validation.summary()))))
    if "train" in validations and "validation" not in validations:
        print("validation: the files of training; figures on them say nothing of new images")
    if arguments.fix:
        _write_corrected(validations[""], arguments)
    if any(validation.findings.total(ERROR) for validation in validations.values()):
        sys.exit(1)


def _validate_config(path: str, overrides: Sequence[str]) -> dict[str, Validation]:
    """Dict: title -> `Validation`; images in both splits count as errors of the second.

    Two splits of the same files are one.
    """
    from tf_panoptic_fpn.data.splits import resolve_data

    with tempfile.TemporaryDirectory() as folder:  # for the embedded data set
        data = resolve_data(load_config(path, overrides), folder).data
        validations = _validate_split(data, "train")
        if _files(data, "train") != _files(data, "validation"):
            train = validations["train"]
            validations |= _validate_split(data, "validation")
            validations["validation"].check_leak(train)
    if tuple(data.pixel_range) != FULL_RANGE:  # it is set, on purpose
        for validation in validations.values():
            validation.findings.counts.pop("pixel_range", None)
    return validations


def _validate_split(data: DataConfig, name: str) -> dict[str, Validation]:
    """Dict: title -> `Validation` of each JSON of a split, or of what its reader makes of it."""
    split = getattr(data, name)
    given = split.paths(data.root)
    if not given:  # it has records
        raise ConfigError(f"`data.{name}.images` must be given: records cannot be checked")
    from tf_panoptic_fpn.data.splits import load_split

    validations = {}
    if split.format == "coco_panoptic":
        paths = (given["images"], given["panoptic_json"], given["panoptic_dir"])
        validations[name] = _checking(validate_panoptic, *paths)
    elif split.format != "coco_instances":
        validations[name] = _checking(validate_split, lambda: load_split(data, name))
    if "instances_json" in given:
        title = f"{name}, instances" if validations else name
        paths = (given["images"], given["instances_json"])
        validations[title] = _checking(validate_instances, *paths)
    return validations


def _files(data: DataConfig, name: str) -> tuple[str, dict[str, pathlib.Path]]:
    """What the configuration of a split says of files, and not of their use."""
    split = getattr(data, name)
    return split.format, split.paths(data.root)


def _checking(validate: Callable[..., Validation], *arguments: Any) -> Validation:
    """Calls one of the checks, which report large images themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return validate(*arguments)


def _write_corrected(validation: Validation, arguments: argparse.Namespace) -> None:
    """Writes the corrected JSON and lists the changes."""
    source = arguments.panoptic_json or arguments.instances_json
    corrected = validation.corrected or {}
    if not all(corrected.get(key) for key in ("images", "annotations", "categories")):
        reasons = validation.changes.examples
        reason = f" ({next(iter(reasons.values()))})" if reasons else ""
        raise DataError(f"{source}: nothing is left to write to {arguments.fix}{reason}")
    path = pathlib.Path(arguments.fix)
    if path.exists():
        raise ConfigError(f"{path}: exists; --fix writes a new file")
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(corrected), encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    segments = [a.get("segments_info", [a]) for a in corrected["annotations"]]
    what = "segments" if "segments_info" in corrected["annotations"][0] else "annotations"
    print(f"{path}: {len(corrected['images'])} images, {sum(map(len, segments))} {what}")
    for change, count in validation.changes.counts.items():
        print(f"{count:15}  {change}, e.g. {validation.changes.examples[change]}")
