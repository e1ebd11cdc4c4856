"""The section `optimizer`: stochastic gradient descent and its learning rate."""

from typing import Literal

from tf_panoptic_fpn.section import (
    Broken,
    Count,
    NotNegative,
    Positive,
    Section,
    Share,
    rule,
    setting,
)


class OptimizerConfig(Section):
    """Stochastic gradient descent; a rate for the batch size, a linear warm-up, and drops."""

    learning_rate: Positive = setting(0.02, "for `train.batch_size` images; scale both together")
    momentum: Share = setting(0.9, "0 is none")
    momentum_style: Literal["torch", "keras"] = setting("torch", "where the rate enters, see `SGD`")
    weight_decay: NotNegative = setting(1e-4, "not on the scales and shifts of norms")
    clip_norm: NotNegative = setting(0.0, "largest norm of all gradients together; 0 is off")
    warmup_steps: int = setting(1000, "steps until the full rate", ge=0)
    warmup_factor: Share = setting(0.001, "the first rate, as a share of the full one")
    drop_steps: tuple[Count, ...] = setting((60000, 80000), "steps at which the rate drops")
    drop_factor: Positive = setting(0.1, "by which it is multiplied")

    @rule
    def drops_ascend(self) -> Broken:
        if list(self.drop_steps) != sorted(set(self.drop_steps)):
            return "drop_steps", "in ascending order, each once"
        return None
