"""The splits of a configuration: where they lie, their records, their index."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import Config, DataConfig
from tf_panoptic_fpn.data import index_cache
from tf_panoptic_fpn.data.index import DatasetIndex, index_of_columns
from tf_panoptic_fpn.data.shapes import write_shapes
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.images import FULL_RANGE
from tf_panoptic_fpn.formats.records import ImageRecord, LazyRecords, PanopticSplit
from tf_panoptic_fpn.weights.pretrained import PRETRAINED
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO


def resolve_data(config: Config, workdir: str | os.PathLike) -> Config:
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
        data = data.model_copy(
            update={
                "root": str(folder),
                "train": data.train.model_copy(update=paths["train"]),
                "validation": data.validation.model_copy(update=paths["validation"]),
            }
        )
    for name in ("train", "validation"):
        getattr(data, name).check_paths(name)
    named = {key: getattr(config.train, key) for key in ("initial_weights", "initial_categories")}
    names = {*MODEL_ZOO, PRETRAINED}
    update = {k: path if path in names else _absolute(path) for k, path in named.items()}
    train = config.train.model_copy(update=update)
    return config.model_copy(update={"data": _with_absolute_paths(data), "train": train})


def _with_absolute_paths(data: DataConfig) -> DataConfig:
    """A run may go on from another folder."""
    update = {"root": _absolute(data.root), "index_cache": _absolute(data.index_cache)}
    if not data.root:
        for name in ("train", "validation"):
            split = getattr(data, name)
            paths = {key: str(path.absolute()) for key, path in split.paths("").items()}
            paths["records"] = _absolute(split.records)
            update[name] = split.model_copy(update=paths)
    return data.model_copy(update=update)


def _absolute(path: str) -> str:
    return path if not path or "://" in path else os.path.abspath(path)


def load_split(
    data: DataConfig, name: str, semantic_things: str = "other", breaches: Breaches | None = None
) -> PanopticSplit:
    """Reads the split "train" or "validation" of a resolved `DataConfig`.

    Args:
        data: `DataConfig`.
        name: "train" or "validation".
        semantic_things: "other" or "all", what the semantic branch predicts for things.
        breaches: `Breaches`, by default one that stops.

    Returns:
        A `PanopticSplit`.

    Raises:
        DataError: if a file of the data set breaks a rule.
    """
    _check_present(data, name)
    split = getattr(data, name).read(data.root, breaches)
    return dataclasses.replace(
        split,
        categories=split.categories.with_semantic_things(semantic_things),
        images=_with_pixel_range(split.images, data.pixel_range),
    )


def _with_pixel_range(
    images: Sequence[ImageRecord], pixel_range: tuple[int, int]
) -> Sequence[ImageRecord]:
    if pixel_range == FULL_RANGE:
        return images
    return LazyRecords(images, lambda record: dataclasses.replace(record, pixel_range=pixel_range))


def _check_present(data: DataConfig, name: str) -> None:
    """Says what to fetch, and where to put it, if a file or a folder of a split is not there."""
    split = getattr(data, name)
    for key, path in split.paths(data.root).items():
        if not path.exists():
            message = f"{path}: cannot be read: no such file or folder (`data.{name}.{key}`)"
            if data.source:
                wanted = ", ".join(getattr(split, each) for each in split.paths(""))
                message += f"; `data.root`, {data.root}, must hold {wanted}, from {data.source}"
            raise DataError(message)


def load_index(data: DataConfig, name: str, semantic_things: str = "other") -> DatasetIndex:
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
        # Late, since it brings TensorFlow, which checks of a data set do without.
        from tf_panoptic_fpn.data.tfrecords import load_records_index, records_folder

        return load_records_index(records_folder(data), semantic_things)
    split = getattr(data, name)
    _check_present(data, name)  # where the index is there as well
    absolute = data.model_copy(update={"root": os.path.abspath(data.root)})
    paths = split.paths(absolute.root)
    beside = pathlib.Path(absolute.root) if data.root else paths["images"].parent
    users = pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "tf_panoptic_fpn"
    )
    categories, columns = index_cache.cached_columns(
        lambda breaches: load_split(absolute, name, breaches=breaches),
        list(paths.values()),
        {"format": split.format, "keys": list(paths)},
        [data.index_cache] if data.index_cache else [beside / index_cache.FOLDER, users],
    )
    return index_of_columns(categories.with_semantic_things(semantic_things), columns)


def check_categories(config: Config, categories: CategoryTable, split_name: str) -> None:
    """Raises ConfigError unless the model has as many classes as the data set.

    Args:
        config: `Config`.
        categories: `CategoryTable` of the data set.
        split_name: "train" or "validation".
    """
    counts = {
        "num_thing_classes": len(categories.things),
        "num_stuff_classes": len(categories.stuff),
    }
    for name, count in counts.items():
        received = getattr(config.model, name)
        if received != count:
            paths = getattr(config.data, split_name).paths("")
            file = paths.get("panoptic_json", "the data set")
            raise ConfigError(f"`model.{name}` must be {count}, as in {file}. Received: {received}")
