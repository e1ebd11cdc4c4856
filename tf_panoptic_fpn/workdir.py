"""The folder of a run: which file is where."""

import os
import pathlib

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.paths import expand


class Workdir:
    """Paths in the folder of a run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = pathlib.Path(expand(path))
        self.config = self.path / "config.yaml"  # the resolved configuration
        self.categories = self.path / "categories.json"  # of the training data
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model.keras"  # written when training is done
        self.lock = self.path / ".lock"  # of the run at work
        self.lock_holder = self.path / ".lock_holder"
        self.best = self.path / "best.keras"  # with `evaluate.keep_best`
        self.pictures = self.path / "pictures"  # of the validations
        self.results = self.path / "results.json"
        self.report = self.path / "report.html"
        self.predictions = self.path / "predictions"
        self.shares = self.path / "shares"  # of an evaluation that several workers do
        self.saved_model = self.path / "saved_model" / "1"

    def create(self) -> None:
        """Makes the folder; raises ConfigError if it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)  # of another worker's start
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the workdir cannot be written: {error.strerror}"
            ) from None

    @property
    def trained(self) -> pathlib.Path:
        """The model to evaluate and export: the best, where it is kept, else the last."""
        return self.best if self.best.is_file() else self.model

    def check_trained(self) -> None:
        """Raises ConfigError unless the folder holds a trained model."""
        for file in (self.config, self.categories, self.model):
            if not file.is_file():
                raise ConfigError(f"{file}: no such file; the workdir holds no finished run")
