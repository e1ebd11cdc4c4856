"""Validation while training goes on: figures, pictures, the best model, and when to stop."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.splits import load_split
from tf_panoptic_fpn.distribution.workers import Workers
from tf_panoptic_fpn.errors import ConfigError, StoppedBySignalError
from tf_panoptic_fpn.evaluation.evaluator import Sample, draw_beside_truth, evaluate
from tf_panoptic_fpn.evaluation.running_metrics import check_occurring, occurring_categories
from tf_panoptic_fpn.evaluation.shares import predict_shares
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.weight_average import average_in_use
from tf_panoptic_fpn.workdir import Workdir


class Validation:
    """Evaluates a model every `evaluate.every` steps; traced once for the whole run.

    Args:
        config: `Config`, resolved.
        model: the `PanopticFPN` that is trained.
        state: `RunState`, which holds the best figure.
        workdir: `Workdir`, of all workers.
        log: `MetricsLog`.
        workers: `Workers`, each of which predicts a share of the images; the first counts.
        check_signals: called after each image; raises StoppedBySignalError to end the validation,
            which is done again when the run goes on.

    Raises:
        ConfigError: if `evaluate.keep_best` is a figure that the data set cannot give.
        DataError: if the first `evaluate.images` images have no ground truth.
    """

    def __init__(
        self,
        config: Config,
        model: PanopticFPN,
        state: RunState,
        workdir: Workdir,
        log: MetricsLog,
        workers: Workers,
        check_signals: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = config.evaluate
        self.model, self.state, self.workdir, self.log = model, state, workdir, log
        self.workers, self.shares = workers, workdir.shares
        self.check_signals = check_signals
        if not self.settings.every:
            return
        split = load_split(config.data, "validation", config.model.semantic_things)
        if self.settings.keep_best.startswith("panoptic") and not split.has_panoptic:
            raise ConfigError(
                "`evaluate.keep_best` must be another figure: data.validation has no panoptic "
                f"ground truth. Received: {self.settings.keep_best!r}"
            )
        if self.settings.images:
            count = min(self.settings.images, len(split.images))
            split = dataclasses.replace(split, images=[split.images[i] for i in range(count)])
        check_occurring(any(map(occurring_categories, split.images)))
        self.started = workers.largest([time.time_ns()])[0]  # as all know it
        self.split = split
        self.predictor = Predictor(model, split.categories, config.merge, config.data.validation)
        self.predictor.pixel_range = config.data.pixel_range

    @property
    def is_out_of_patience(self) -> bool:
        """Whether `evaluate.patience` ends the training."""
        return self.state.is_out_of_patience(self.settings.patience)

    def run_if_due(self, step: int) -> None:
        """Evaluates the model of `step` steps if that is still to be done, and no signal comes."""
        every = self.settings.every
        if step and every and step % every == 0 and self.state.validated_step.numpy() < step:
            with (
                self.log.timed("validation"),
                contextlib.suppress(StoppedBySignalError),
                average_in_use(self.state.average),
            ):
                self._run(step)

    def _run(self, step: int) -> None:
        """Evaluates; the first worker logs, draws, and keeps the model if it is the best so far."""
        start = time.perf_counter()
        drawn: dict[str, np.ndarray] = {}
        shares = []
        if self.workers.count > 1:
            identity = {"run": self.started, "step": step}
            run = (self.workers, self.predictor, self.split, self.shares, identity)
            shares = predict_shares(*run, on_image=lambda *_: self.check_signals())
        if self.workers.is_first:
            figures = self._figures(shares, drawn)
            self.log.write_validation(step, figures, drawn, time.perf_counter() - start)
            self._compare(step, figures)
            shutil.rmtree(self.shares, ignore_errors=True)
        self.state.validated_step.assign(step)

    def _figures(
        self, shares: list[pathlib.Path], drawn: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """The figures of the whole split; draws its first images."""

        def look(sample: Sample, result: Result, quality: float | None) -> None:
            self.check_signals()
            if len(drawn) < self.settings.pictures:
                picture = draw_beside_truth(*sample, result, self.split.categories)
                drawn[sample[0].file_name] = picture

        return flat_figures(
            evaluate(
                self.predictor,
                evaluation_samples(self.split),
                self.split.categories,
                has_panoptic=self.split.has_panoptic,
                shares=shares,
                on_image=look,
            )
        )

    def _compare(self, step: int, figures: Mapping[str, float]) -> None:
        """Keeps the model if its figure is the best so far."""
        name, state = self.settings.keep_best, self.state
        if not name:
            return
        if not figures.get(name, -math.inf) > state.best.numpy():  # without ground truth, none
            state.validations_since_best.assign_add(1)
            return
        state.validations_since_best.assign(0)
        try:
            with replacing(self.workdir.best) as file:
                self.model.save(file)
        except OSError as error:
            logging.warning(
                "%s: could not be written; training goes on: %s", self.workdir.best, error
            )
            return
        state.best.assign(figures[name])
        state.best_step.assign(step)


def flat_figures(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Returns the numbers of an evaluation's results under dotted names, but not those by class."""
    figures = {}
    for name, value in results.items():
        if isinstance(value, Mapping) and name != "per_class":
            figures.update(flat_figures(value, f"{prefix}{name}."))
        elif isinstance(value, (int, float)):
            figures[f"{prefix}{name}"] = value
    return figures
