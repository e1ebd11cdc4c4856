"""The splits of a configuration: where they lie, their records, their index."""

import dataclasses
import os
import pathlib

from tf_panoptic_fpn.config_rules import SPLIT_PATHS, check_paths
from tf_panoptic_fpn.data import index_cache
from tf_panoptic_fpn.data.index import index_of_columns
from tf_panoptic_fpn.data.shapes import write_shapes
from tf_panoptic_fpn.data.tfrecords import load_records_index, records_folder
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.cityscapes import read_cityscapes, read_cityscapes_panoptic
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances, with_coco_instances
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.coco_stuff import read_coco_stuff
from tf_panoptic_fpn.formats.label_maps import read_label_maps


def resolve_data(config, workdir):
    """Writes the embedded data set if the configuration asks for it, and fills in its paths.

    Args:
        config: `Config`.
        workdir: folder; the shapes go to `workdir/shapes`.

    Returns:
        A `Config` whose splits both have paths.

    Raises:
        ConfigError: if a path of a split is missing or is not one of its format.
    """
    data = config.data
    if data.shapes is not None:
        folder = pathlib.Path(workdir).resolve() / "shapes"
        write_shapes(folder, data.shapes)
        paths = {
            name: {
                "images": f"{name}/images",
                "panoptic_json": f"{name}/panoptic.json",
                "panoptic_dir": f"{name}/panoptic",
            }
            for name in ("train", "validation")
        }
        data = dataclasses.replace(
            data,
            root=str(folder),
            train=dataclasses.replace(data.train, **paths["train"]),
            validation=dataclasses.replace(data.validation, **paths["validation"]),
        )
    for name in ("train", "validation"):
        check_paths(getattr(data, name), name)
    return dataclasses.replace(config, data=data)


def load_split(data, name, semantic_things="other", skipped=None):
    """Reads the split "train" or "validation" of a resolved `DataConfig`.

    Args:
        data: `DataConfig`.
        name: "train" or "validation".
        semantic_things: "other" or "all", what the semantic branch predicts for things.
        skipped: a list that takes one line for each annotation that is left out because it is
            empty or its mask or box breaks a rule; by default that is an error.

    Returns:
        A `PanopticSplit`.

    Raises:
        DataError: if a file of the data set breaks a rule.
    """
    split = _read_split(getattr(data, name), _split_paths(data, name), skipped)
    return dataclasses.replace(
        split, categories=split.categories.with_semantic_things(semantic_things)
    )


def _read_split(split, paths, skipped):
    if split.format == "label_maps":
        return read_label_maps(**paths)
    if split.format == "cityscapes" and split.label_dir:
        return read_cityscapes(**paths)
    if split.format == "cityscapes":
        return read_cityscapes_panoptic(**paths, skipped=skipped)
    if split.format == "coco_instances":
        return read_coco_instances(**paths, skipped=skipped)
    if split.format == "coco_stuff":
        return read_coco_stuff(**paths, skipped=skipped)
    instances_json = paths.pop("instances_json", None)
    panoptic = read_coco_panoptic(**paths, skipped=skipped)
    return with_coco_instances(panoptic, instances_json, skipped) if instances_json else panoptic


def load_index(data, name, semantic_things="other"):
    """Loads the index of the split "train" or "validation", which is made first if need be.

    Annotations and images that cannot be used are left out, counted and named in the log.

    Args:
        data: a resolved `DataConfig`.
        name: "train" or "validation".
        semantic_things: "other" or "all", what the semantic branch predicts for things.

    Returns:
        A `DatasetIndex`.

    Raises:
        DataError: if a file of the data set breaks a rule.
    """
    if getattr(data, name).records:
        return load_records_index(records_folder(data), semantic_things)
    absolute = dataclasses.replace(data, root=os.path.abspath(data.root))
    paths = _split_paths(absolute, name)
    beside = pathlib.Path(absolute.root if data.root else paths["images_dir"].parent)
    users = pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "tf_panoptic_fpn"
    )
    categories, columns = index_cache.cached_columns(
        lambda skipped: load_split(absolute, name, skipped=skipped),
        list(paths.values()),
        {"format": getattr(data, name).format, "keys": list(paths)},
        [data.index_cache] if data.index_cache else [beside / index_cache.FOLDER, users],
    )
    return index_of_columns(categories.with_semantic_things(semantic_things), columns)


_ARGUMENTS = {"images": "images_dir", "categories": "categories_file"}


def _split_paths(data, name):
    """The paths of a split, as arguments of the function that reads it."""
    split = getattr(data, name)
    given = [key for key in SPLIT_PATHS if getattr(split, key)]
    return {_ARGUMENTS.get(k, k): pathlib.Path(data.root, getattr(split, k)) for k in given}


def check_categories(config, categories, file):
    """Raises ConfigError unless the model has as many classes as the data set.

    Args:
        config: `Config`.
        categories: `CategoryTable` of the data set.
        file: where the table was read, for the message.
    """
    counts = {
        "num_thing_classes": len(categories.things),
        "num_stuff_classes": len(categories.stuff),
    }
    for name, count in counts.items():
        received = getattr(config.model, name)
        if received != count:
            file = file or "the data set"  # of a format without a panoptic JSON
            raise ConfigError(f"`model.{name}` must be {count}, as in {file}. Received: {received}")
