"""From a configuration to objects; the only place where the two meet."""

import contextlib
import dataclasses
import os
import pathlib

import keras
import tensorflow as tf

from tf_panoptic_fpn import weights
from tf_panoptic_fpn.config_rules import SPLIT_PATHS, check_paths
from tf_panoptic_fpn.data import index_cache
from tf_panoptic_fpn.data.cityscapes import read_cityscapes, read_cityscapes_panoptic
from tf_panoptic_fpn.data.coco import read_coco_panoptic
from tf_panoptic_fpn.data.coco_instances import read_coco_instances, with_coco_instances
from tf_panoptic_fpn.data.coco_stuff import read_coco_stuff
from tf_panoptic_fpn.data.label_maps import read_label_maps
from tf_panoptic_fpn.data.shapes import write_shapes
from tf_panoptic_fpn.data.tfrecords import load_records_index, records_folder
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.training.optimizer import SGD, WarmupStepDecay


def build_model(config):
    """Returns the untrained `PanopticFPN` of a `Config`."""
    return PanopticFPN(**dataclasses.asdict(config.model), name="panoptic_fpn")


def load_initial_weights(model, settings):
    """Sets a new model's weights from the checkpoint that a `TrainConfig` names, if any.

    Raises:
        WeightsError: if it cannot be read or does not fit.
    """
    if settings.initial_weights:
        load = getattr(weights, f"load_{settings.initial_weights_source}")
        load(model, settings.initial_weights)


def load_model(path):
    """Loads a `PanopticFPN` from a `.keras` file.

    Raises:
        ConfigError: if the file is absent or holds something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be loaded: {' '.join(str(error).split())}") from None
    if not isinstance(model, PanopticFPN):
        raise ConfigError(f"{path}: must hold a PanopticFPN. Received: {type(model).__name__}")
    return model


def build_optimizer(config):
    """Returns the optimizer of an `OptimizerConfig`, for gradients already summed over replicas."""
    schedule = WarmupStepDecay(
        config.learning_rate,
        config.warmup_steps,
        config.warmup_factor,
        config.drop_steps,
        config.drop_factor,
    )
    return SGD(
        schedule,
        config.momentum,
        config.weight_decay,
        config.momentum_style,
        reduces_gradients=False,
    )


def build_strategy(replicas):
    """Returns a `MirroredStrategy` over all GPUs or, without any, over logical CPU devices.

    Args:
        replicas: int, logical CPU devices to train on.

    Raises:
        ConfigError: if TensorFlow already runs with fewer logical CPU devices.
    """
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        # Refused where TensorFlow runs already; what counts is how many devices there are.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
            )
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < replicas:
        raise ConfigError(
            f"`train.replicas` must be set before TensorFlow starts. Received: {replicas} replicas "
            f"and {len(devices)} running CPU device(s)"
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices[:replicas]])


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


def load_split(data, name, skipped=None):
    """Reads the split "train" or "validation" of a resolved `DataConfig`.

    Args:
        data: `DataConfig`.
        name: "train" or "validation".
        skipped: a list that takes one line for each annotation that is left out because it is
            empty or its mask or box breaks a rule; by default that is an error.

    Returns:
        A `PanopticSplit`.

    Raises:
        DataError: if a file of the data set breaks a rule.
    """
    split = getattr(data, name)
    paths = _split_paths(data, name)
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
        semantic_things: "other" or "all", see `CategoryTable.semantic_classes`.

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
    return index_cache.cached_index(
        lambda skipped: load_split(absolute, name, skipped),
        list(paths.values()),
        {"format": getattr(data, name).format, "keys": list(paths)},
        [data.index_cache] if data.index_cache else [beside / index_cache.FOLDER, users],
        semantic_things,
    )


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
