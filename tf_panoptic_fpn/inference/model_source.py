"""What is made of a trained model: its predictors and its export."""

import dataclasses
import functools
import hashlib
import pathlib

import tensorflow as tf

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import load_config, load_run_config
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.devices import replica_devices
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.inference.saved_model import SavedModelPredictor
from tf_panoptic_fpn.inference.test_time_augmentation import AugmentedPredictor
from tf_panoptic_fpn.models.build_model import load_model
from tf_panoptic_fpn.paths import expand
from tf_panoptic_fpn.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where a model lies: in the `workdir` of a run; or in `weights`, a .keras file, or a
    `saved_model`, with the `config` that names its data.

    Args:
        workdir, config, weights, saved_model: paths or None.
        overrides: `a.b=value` strings on the configuration.

    Raises:
        ConfigError: if anything else is given together.
    """

    workdir: str | None = None
    config: str | None = None
    weights: str | None = None
    saved_model: str | None = None
    overrides: tuple[str, ...] = ()

    def __post_init__(self):
        models = [name for name in ("workdir", "weights", "saved_model") if getattr(self, name)]
        if len(models) != 1 or bool(self.workdir) == bool(self.config):
            given = [*models, "config"] if self.config else models
            raise ConfigError(
                "A model is given by --workdir, or by --config with --weights or --saved-model. "
                f"Received: {given}"
            )

    @property
    def path(self):
        """The file of the model, or the folder of the SavedModel."""
        if self.workdir:
            return Workdir(self.workdir).model
        return pathlib.Path(expand(self.weights or self.saved_model))

    def load_config(self, overrides=()):
        """Loads the `Config`, with more overrides."""
        if self.workdir:
            Workdir(self.workdir).check_trained()
            return load_run_config(Workdir(self.workdir).config, [*self.overrides, *overrides])
        return load_config(self.config, [*self.overrides, *overrides])

    def fingerprint(self):
        """Returns the SHA-256 of the model's files."""
        digest = hashlib.sha256()
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        for file in files:
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def load_predictor(workdir, overrides=()):
    """Loads the `Predictor` of a finished run.

    Args:
        workdir: folder of the run.
        overrides: `a.b=value` strings on its configuration.

    Returns:
        The `Predictor` and the run's `Config`.

    Raises:
        ConfigError: if the folder holds no finished run.
    """
    source = ModelSource(workdir, overrides=tuple(overrides))
    config = source.load_config()
    categories = CategoryTable.load(Workdir(workdir).categories)
    return _load(source, config, categories), config


def load_predictors(source, config, categories, tta=False, class_shares=None):
    """Loads a model once for each device, see `replica_devices`.

    Args:
        source: `ModelSource`.
        config: `Config`.
        categories: `CategoryTable` of the data set.
        tta: bool, whether to look at each image several times, see `AugmentedPredictor`.
        class_shares: see `Predictor`.

    Returns:
        list of functions, each as a `Predictor`; they may run at once.

    Raises:
        ConfigError: if the model cannot be loaded or does not fit the data set, or a SavedModel is
            to do what is not in it.
    """
    if source.workdir:
        _check_same_ids(CategoryTable.load(Workdir(source.workdir).categories), categories, source)
    predictors = []
    for device in replica_devices(config.train.replicas):
        with tf.device(device):
            predictor = _load(source, config, categories, tta, class_shares)
        predictors.append(functools.partial(_predict_on, device, predictor))
    return predictors


def _load(source, config, categories, tta=False, class_shares=None):
    if source.saved_model:
        if tta or class_shares is not None or any(o.startswith("merge.") for o in source.overrides):
            raise ConfigError(
                f"{source.path}: a SavedModel's merge is in its graph: no --tta, no "
                "--balance-classes, no --set merge.*"
            )
        return SavedModelPredictor(source.path, categories)
    model = load_model(source.path)
    _check_same_classes(model, config, source.path)
    if class_shares is not None and "semantic" not in model.config["tasks"]:
        raise ConfigError(f"{source.path}: --balance-classes needs a model with the task semantic")
    validation = config.data.validation
    if tta:
        predictor = AugmentedPredictor(
            model, categories, config.merge, validation, config.tta, class_shares
        )
    else:
        predictor = Predictor(model, categories, config.merge, validation, class_shares)
    predictor.pixel_range = tuple(config.data.pixel_range)
    return predictor


def _predict_on(device, predictor, image):
    with tf.device(device):
        return predictor(image)


def _check_same_classes(model, config, path):
    for name in ("num_thing_classes", "num_stuff_classes", "semantic_things"):
        expected, received = model.config[name], getattr(config.model, name)
        if received != expected:
            raise ConfigError(
                f"`model.{name}` must be {expected!r}, as in {path}. Received: {received!r}"
            )


def _check_same_ids(trained, categories, source):
    for kind in ("thing_ids", "stuff_ids"):
        expected, received = getattr(trained, kind), getattr(categories, kind)
        if expected != received:
            raise ConfigError(
                f"{source.workdir}: the data set must have the {kind} of the training data, "
                f"{expected}. Received: {received}"
            )
