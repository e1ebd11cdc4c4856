"""The section `optimizer`: the optimizer and its learning rate."""

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

DROP_STEPS = (60000, 80000)  # of 90000


class OptimizerConfig(Section):
    """The optimizer; a rate for the batch size, a linear warm-up, and a decay."""

    algorithm: Literal["sgd", "adamw"] = setting("sgd", "AdamW wants rates of 1e-4 or so")
    learning_rate: Positive = setting(0.02, "for `train.batch_size` images; scale both together")
    momentum: Share = setting(0.9, "0 is none; the first beta of AdamW")
    momentum_style: Literal["torch", "keras"] = setting("torch", "where the rate enters, see `SGD`")
    weight_decay: NotNegative = setting(1e-4, "not on the scales and shifts of norms")
    clip_norm: NotNegative = setting(0.0, "largest norm of all gradients together; 0 is off")
    backbone_lr_factor: Positive = setting(1.0, "times the rate, for the backbone alone")
    layer_decay: float = setting(
        1.0, "times the rate for each block of the backbone from the last to the first", gt=0, le=1
    )
    warmup_steps: int = setting(1000, "steps until the full rate", ge=0)
    warmup_factor: Share = setting(0.001, "the first rate, as a share of the full one")
    schedule: Literal["steps", "cosine", "polynomial"] = setting("steps", "how the rate decays")
    drop_steps: tuple[Count, ...] = setting(DROP_STEPS, "steps at which the rate drops")
    drop_factor: Positive = setting(0.1, "by which it is multiplied")
    end_factor: Share = setting(0.0, "the last rate of cosine and polynomial, as a share")
    power: Positive = setting(0.9, "of polynomial: 1 is a straight line")

    @rule
    def drops_ascend(self) -> Broken:
        if list(self.drop_steps) != sorted(set(self.drop_steps)):
            return "drop_steps", "in ascending order, each once"
        return None

    @rule
    def drops_belong_to_steps(self) -> Broken:
        if self.schedule != "steps" and self.drop_steps not in ((), DROP_STEPS):
            return "drop_steps", f"left out with optimizer.schedule: {self.schedule}"
        return None
