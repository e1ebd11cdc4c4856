"""All that looks at a run while it goes on."""

import contextlib
from collections.abc import Iterator

import keras

from tf_panoptic_fpn.config import Config
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
        workdir: `Workdir`.
        start: int, steps done.
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
    ) -> None:
        self.problems = DataProblems()
        self.checkpoints = checkpoints
        self.signals = StopSignals()
        self.profile = StepProfile(config.train.profile, workdir)
        self.skipped = SkippedSteps(state, config.train.max_skipped, workdir)
        self.log = MetricsLog(
            workdir, start, lambda step: last_rate(optimizer), model.trainable_variables
        )
        self.validation = Validation(config, model, state, workdir, self.log, self.signals.check)

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Catches signals within, and at the end waits for all that is being written."""
        with (
            contextlib.closing(self.log),
            contextlib.closing(self.checkpoints),
            self.signals.caught(),
        ):
            yield
