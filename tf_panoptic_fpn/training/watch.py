"""All that looks at a run while it goes on."""

import contextlib
from collections.abc import Iterator

import keras

from tf_panoptic_fpn.analysis.costs import count_training
from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.distribution.workers import Workers
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.training.checkpoint import Checkpoints
from tf_panoptic_fpn.training.data_problems import DataProblems
from tf_panoptic_fpn.training.log import MetricsLog
from tf_panoptic_fpn.training.optimizer import last_rate
from tf_panoptic_fpn.training.profile import StepProfile
from tf_panoptic_fpn.training.run_state import RunState
from tf_panoptic_fpn.training.skipped_steps import SkippedSteps
from tf_panoptic_fpn.training.stop_signals import StopSignals
from tf_panoptic_fpn.training.validation import Validation
from tf_panoptic_fpn.workdir import Workdir


class Watch:
    """The log, the checkpoints and whatever else the loop calls between its steps.

    Args:
        config: `Config`, resolved.
        model: the `PanopticFPN`.
        optimizer: of `build_optimizer`.
        state: `RunState`.
        checkpoints: `Checkpoints`.
        workdir: `Workdir`, to which the first worker writes.
        start: int, steps done.
        workers: `Workers`.
    """

    def __init__(
        self,
        config: Config,
        model: PanopticFPN,
        optimizer: keras.optimizers.Optimizer,
        state: RunState,
        checkpoints: Checkpoints,
        workdir: Workdir,
        start: int,
        workers: Workers,
    ) -> None:
        own_workdir = workers.own_workdir(workdir)
        self.workers, self.state = workers, state
        self.model = model
        self.problems = DataProblems()
        self.checkpoints = checkpoints
        self.signals = StopSignals()
        self.profile = StepProfile(config.train.profile, own_workdir)
        self.skipped = SkippedSteps(state, config.train.max_skipped, own_workdir)
        self.log = MetricsLog(
            own_workdir,
            start,
            lambda step: last_rate(optimizer),
            model.trainable_variables,
            lambda: count_training(model),
        )
        self.validation = Validation(
            config, model, state, workdir, self.log, workers, self.signals.check
        )

    def share(self) -> None:
        """What one worker has learnt since the last step, a signal or a figure, all learn."""
        since_best = int(self.state.validations_since_best.numpy()) if self.workers.is_first else 0
        received, since_best = self.workers.largest([self.signals.received or 0, since_best])
        self.signals.received = received or None
        self.state.validations_since_best.assign(since_best)

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Catches signals within, and at the end waits for all that is being written."""
        with (
            contextlib.closing(self.log),
            contextlib.closing(self.checkpoints),
            self.signals.caught(),
        ):
            yield
